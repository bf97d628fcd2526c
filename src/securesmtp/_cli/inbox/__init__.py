"""
What ``securesmtp serve`` needs: messages in a folder (`store`), pages about them (`pages`), a web server (`web`).

A message comes from anywhere, and may be hostile. Nothing in it becomes a file's name or a line of the terminal, and a
browser that shows it runs nothing and fetches nothing: `pages` says how.
"""
