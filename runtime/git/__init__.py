"""Git with the user's provider tokens, which never touch a URL, a file or an argument list."""
