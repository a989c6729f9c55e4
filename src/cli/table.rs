//! Rows of text as a table: columns of the terminal, not characters, are counted, for 小红 takes four.

use unicode_width::UnicodeWidthStr;

/// The rows, the first of which is the head, aligned under one another; those columns to the right that `right` names. The last column is not padded
/// unless it is one of them.
pub fn aligned<const N: usize>(rows: &[[String; N]], right: &[usize]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].width()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut table = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[column] - cell.width());
            let gap = if column == 0 { "" } else { "  " };
            let (before, after) = if right.contains(&column) { (&*padding, "") } else { ("", &*padding) };
            let after = if column + 1 == N { "" } else { after };
            table.extend([gap, before, cell, after]);
        }
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_those_of_a_terminal() {
        let rows = [["NAME", "N", "NOTE"], ["小红", "7", "a"], ["ann", "1234", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(aligned(&rows, &[1]), "NAME     N  NOTE\n小红     7  a\nann   1234  \n");
    }
}
