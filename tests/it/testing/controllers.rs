//! Recipes with a controller.

/// The recipe `enas` with lessons that are short and frequent.
pub fn quick_controller() -> String {
    let text = supernet::train::Recipe::text_of("enas").expect("built in");
    let changes = [
        ("every_epochs = 1", "every_epochs = 0.25"),
        ("updates = 50", "updates = 3"),
        ("samples = 20", "samples = 4"),
        ("hidden = 64", "hidden = 8"),
        ("candidates = 100", "candidates = 6"),
        ("images = 1000", "images = 100"),
        ("lr = 0.001", "lr = 0.02"),
    ];
    changes.into_iter().fold(text, |text, (before, after)| {
        assert!(text.contains(before), "{before}");
        text.replacen(before, after, 1)
    })
}
