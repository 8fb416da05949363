//! What shells and manuals want to know of the commands.

command::shell_commands!("extract");
