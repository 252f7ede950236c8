"""Export and import: chats as files, and the files of other programs as chats."""
