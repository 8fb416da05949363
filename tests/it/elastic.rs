//! Extracted equals elastic, and sorting channels changes nothing.
