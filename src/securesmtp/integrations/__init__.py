"""Parts for other libraries; each needs that library installed, and uses only the public names of `securesmtp`."""
