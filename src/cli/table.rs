//! Rows of text as a table: columns of the terminal, not characters, are counted, for 小红 takes four.

use std::borrow::Cow;

use unicode_width::UnicodeWidthStr;

/// The rows, the first of which is the head, aligned under one another; those columns to the right that `right` names. The last column is not padded
/// unless it is one of them.
pub fn aligned(rows: &[impl AsRef<[String]>], right: &[usize]) -> String {
    let columns = rows.first().map_or(0, |head| head.as_ref().len());
    let width = |column: usize| rows.iter().map(|row| row.as_ref()[column].width()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut table = String::new();
    for row in rows {
        for (column, cell) in row.as_ref().iter().enumerate() {
            let padding = " ".repeat(widths[column] - cell.width());
            let gap = if column == 0 { "" } else { "  " };
            let (before, after) = if right.contains(&column) { (&*padding, "") } else { ("", &*padding) };
            let after = if column + 1 == columns { "" } else { after };
            table.extend([gap, before, cell, after]);
        }
        table.push('\n');
    }
    table
}

/// `text` in at most so many cells of the terminal; … stands for what is cut off.
pub fn cut(text: &str, cells: usize) -> Cow<'_, str> {
    if text.width() <= cells {
        return text.into();
    }
    let ends = text.char_indices().map(|(at, _)| at).take_while(|at| text[..*at].width() < cells);
    format!("{}…", &text[..ends.last().unwrap_or(0)]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_fits_and_says_so() {
        assert_eq!(
            ["annabel", "anna", "小红红", "小红", "a"].map(|text| cut(text, 4)),
            ["ann…", "anna", "小…", "小红", "a"]
        );
    }

    #[test]
    fn columns_are_those_of_a_terminal() {
        let rows = [["NAME", "N", "NOTE"], ["小红", "7", "a"], ["ann", "1234", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(aligned(&rows, &[1]), "NAME     N  NOTE\n小红     7  a\nann   1234  \n");
    }
}
