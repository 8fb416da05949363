//! Every command explains itself. (Having this test here also makes `cargo test` build the binary, which the
//! workspace's own tests run.)

use std::process::Command;

#[test]
fn every_command_has_help_with_an_example() {
    for command in ["space", "train", "eval", "sample", "finetune", "bench"] {
        let output = Command::new(env!("CARGO_BIN_EXE_supernet"))
            .args([command, "--help"])
            .output()
            .expect("it starts");
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success() && text.contains("Example:"), "{command}: {text}");
        assert!(text.contains("--json") && text.contains("--quiet"), "{command}: {text}");
    }
}
