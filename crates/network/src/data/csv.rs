//! Lines of fields with commas between them, as spreadsheets write them (RFC 4180). Knows nothing of their meaning.

use crate::error::{Error, Result};

/// A line's fields, and where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Counted from 1, as editors do.
    pub line: usize,
    pub fields: Vec<String>,
}

/// The rows under a header line, each with as many fields as it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub header: Vec<String>,
    pub rows: Vec<Row>,
}

impl Table {
    /// Reads a text; `place` names it in messages.
    ///
    /// # Errors
    /// If it has no line, a quote is not closed or followed by more, or a row is longer or shorter than the header.
    pub fn of_text(place: &str, text: &str) -> Result<Self> {
        let mut rows = rows_of(place, text)?.into_iter();
        let Some(Row { fields: header, .. }) = rows.next() else {
            return Err(Error::invalid(place, "header", "a line with the names of the columns", "none"));
        };
        let rows: Vec<Row> = rows.collect();
        if let Some(row) = rows.iter().find(|row| row.fields.len() != header.len()) {
            let expected = format!("{} fields as in the header", header.len());
            return Err(Error::invalid(place, format!("line {}", row.line), expected, row.fields.len())
                .and_then_do("put quotes around a field that holds a comma"));
        }
        Ok(Self { header, rows })
    }

    /// Where columns of these names stand, whatever the case.
    pub fn columns<const N: usize>(&self, place: &str, names: [&str; N]) -> Result<[usize; N]> {
        let mut columns = [0; N];
        for (column, name) in columns.iter_mut().zip(names) {
            *column = self
                .header
                .iter()
                .position(|field: &String| field.trim().eq_ignore_ascii_case(name))
                .ok_or_else(|| {
                let expected = format!("columns {}", names.join(", "));
                Error::invalid(place, "header", expected, self.header.join(","))
            })?;
        }
        Ok(columns)
    }
}

/// All lines but empty ones.
fn rows_of(place: &str, text: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut line = 1;
    let mut begun = 1;
    let wrong =
        |line, expected: &str, got: &str| Err(Error::invalid(place, format!("line {line}"), expected, got));
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if field.is_empty() => {
                loop {
                    match letters.next() {
                        Some('"') if letters.peek() == Some(&'"') => field.extend(letters.next()),
                        Some('"') => break,
                        Some(letter) => {
                            line += usize::from(letter == '\n');
                            field.push(letter);
                        }
                        None => return wrong(begun, "a quote that ends", "one that does not"),
                    }
                }
                if !matches!(letters.peek(), None | Some(',' | '\r' | '\n')) {
                    return wrong(line, "a comma or the line's end after a quote", "something else");
                }
            }
            ',' => fields.push(std::mem::take(&mut field)),
            '\r' if letters.peek() == Some(&'\n') => {}
            '\r' | '\n' => {
                line += 1;
                push(&mut rows, &mut fields, &mut field, begun);
                begun = line;
            }
            letter => field.push(letter),
        }
    }
    push(&mut rows, &mut fields, &mut field, begun);
    Ok(rows)
}

/// Ends a line; an empty one is none.
fn push(rows: &mut Vec<Row>, fields: &mut Vec<String>, field: &mut String, line: usize) {
    let mut fields = std::mem::take(fields);
    fields.push(std::mem::take(field));
    if fields.len() > 1 || !fields[0].trim().is_empty() {
        rows.push(Row { line, fields });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Vec<String>>> {
        let table = Table::of_text("x.csv", text)?;
        Ok(table.rows.into_iter().map(|row| row.fields).collect())
    }

    #[test]
    fn fields_are_read_as_spreadsheets_write_them() {
        for (text, expected) in [
            ("a,b\n1,2\n", vec![["1", "2"]]),
            ("a,b\r\n1,2\r\n\r\n3,4", vec![["1", "2"], ["3", "4"]]),
            ("a,b\n\"x, y\",\"say \"\"no\"\"\"\n", vec![["x, y", "say \"no\""]]),
            ("a,b\n\"two\nlines\",\n", vec![["two\nlines", ""]]),
            ("a,b\r1,2\r", vec![["1", "2"]]),
            ("a,b\n", vec![]),
            ("a,b\n\"\",2\n", vec![["", "2"]]),
        ] {
            assert_eq!(read(text).unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, expected) in [
            ("", "header: expected a line"),
            ("a,b\n1\n", "line 2: expected 2 fields as in the header, got 1"),
            ("a,b\n1,\"2\n3\n", "line 2: expected a quote that ends"),
            ("a,b\n\n\"1\"x,2\n", "line 3: expected a comma or the line's end"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.starts_with("x.csv: ") && message.contains(expected), "{message}");
        }
        let table = Table::of_text("x.csv", "Path, LABEL\n1,2\n").unwrap();
        assert_eq!(table.columns("x.csv", ["label", "path"]).unwrap(), [1, 0]);
        let message = table.columns("x.csv", ["path", "split"]).unwrap_err().to_string();
        assert!(message.contains("expected columns path, split, got Path, LABEL"), "{message}");
    }
}
