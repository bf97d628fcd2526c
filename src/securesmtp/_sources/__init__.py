"""Where a secret comes from: what the functions of `securesmtp.credentials` return."""
