//! The program starts and names its commands. (This test also makes `cargo test` build the program, which the
//! workspace's own tests run; those read the help of every command.)

use std::process::Command;

#[test]
fn commands_are_named_with_an_example() {
    let output = Command::new(env!("CARGO_BIN_EXE_supernet")).arg("--help").output().expect("it starts");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success() && text.contains("\nCommands:\n") && text.contains("Example"), "{text}");
}
