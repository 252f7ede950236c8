"""The interactive chat: prompt, answers while they stream, slash commands, pickers."""
