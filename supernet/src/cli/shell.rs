//! Shell completion and manual pages of the commands.

command::shell_commands!("supernet");
