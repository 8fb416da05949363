//! Completion for shells and manual pages.

command::shell_commands!("extract");
