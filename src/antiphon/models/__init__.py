"""What continues a context: upstream endpoints, the embedded model, the scripted one."""
