//! Tables for people, and the sizes in them.

use bytesize::ByteSize;

/// The head and the rows, each column as wide as its widest cell, two spaces between them, a line each.
pub(crate) fn table<const N: usize>(
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned))
        .chain(rows)
        .collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// Bytes in the unit that reads best.
pub(crate) fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_with_their_last() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let rows = [row(["größe", "1", ""]), row(["a", "22", "end"])];
        assert_eq!(
            table(["N", "COUNT", "X"], rows),
            "N      COUNT  X\ngröße  1\na      22     end\n"
        );
        assert_eq!(size(1536), "1.5 KiB");
    }
}
