//! Tables of a page.

/// Columns of a table that fits every screen.
const MAX_NARROW: usize = 3;

/// A table with a caption. Cells are HTML; the first `words` columns are words, the others numbers.
pub(super) fn table(caption: &str, headings: &[&str], words: usize, rows: &[Vec<String>]) -> String {
    let class = |at: usize| if at < words { "" } else { " class=\"number\"" };
    let head: String = headings
        .iter()
        .enumerate()
        .map(|(at, heading)| format!("<th scope=\"col\"{}>{heading}</th>", class(at)))
        .collect();
    let row = |cells: &Vec<String>| {
        let cells: String = cells
            .iter()
            .enumerate()
            .map(|(at, cell)| match at {
                0 => format!("<th scope=\"row\">{cell}</th>"),
                _ => format!("<td{}>{cell}</td>", class(at)),
            })
            .collect();
        format!("<tr>{cells}</tr>\n")
    };
    let body: String = rows.iter().map(row).collect();
    // A wide table scrolls, also with the keyboard.
    let focus = if headings.len() > MAX_NARROW {
        format!(" tabindex=\"0\" role=\"group\" aria-label=\"{caption}\"")
    } else {
        String::new()
    };
    format!(
        "<div class=\"scroll\"{focus}><table><caption>{caption}</caption>\
         <thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"
    )
}
