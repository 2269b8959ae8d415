//! `autocomplete export`.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use api::v1;
use client::TermPages;
use cluster::limits;
use indicatif::{ProgressBar, ProgressStyle};
use runtime::Runtime;
use vfs::{FileWriter, RealDisk, Vfs as _, durable};

use crate::output::counted;
use crate::target::{NamespaceArgs, TargetArgs};

const PAGE_TERMS: u32 = 10_000;
const ZSTD_LEVEL: i32 = 3;

/// Writes all terms with their counts as `term<TAB>count`, in byte order. `load` reads the result back.
///
/// A count above 10^12, the most that one line of a load can count, is written as several lines of its term, which add up to it.
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// Only terms that start with this
    #[arg(long, default_value = "")]
    prefix: String,

    /// Write to this file instead of standard output; compressed if it ends in .zst. It appears when it is complete
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Add a third column: how the term was first written
    #[arg(long)]
    display: bool,

    #[command(flatten)]
    namespace: NamespaceArgs,

    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn export(runtime: &Runtime, arguments: ExportArgs) -> Result<(), anyhow::Error> {
    let client = arguments.target.client(runtime)?;
    let pages = client.list_terms(v1::ListTermsRequest {
        namespace: arguments.namespace.namespace.to_string(),
        prefix: arguments.prefix.clone(),
        page_size: PAGE_TERMS,
        page_token: String::new(),
    });
    let Some(path) = &arguments.out else {
        let stdout = BufWriter::new(io::stdout().lock());
        copy(pages, stdout, arguments.display).await?;
        return Ok(());
    };
    let terms = to_file(pages, path, arguments.display).await?;
    writeln!(
        io::stderr(),
        "wrote {} to {}",
        counted(terms, "term"),
        path.display()
    )?;
    Ok(())
}

/// Writes a temporary file beside the final one, and gives it its name when it is complete and on disk.
async fn to_file(pages: TermPages, path: &Path, display: bool) -> Result<u64, anyhow::Error> {
    let disk = RealDisk::new();
    let temporary = durable::temporary(path);
    match disk.remove_file(&temporary) {
        Err(error) if !error.is_not_found() => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    let file = FileWriter::new(disk.create_new(&temporary)?);
    let is_zstd = path.extension().is_some_and(|extension| extension == "zst");
    let terms = if is_zstd {
        let mut encoder = zstd::Encoder::new(file, ZSTD_LEVEL).context("starting compression")?;
        encoder.include_checksum(true)?;
        let (terms, encoder) = copy(pages, encoder, display).await?;
        encoder.finish()?.finish()?;
        terms
    } else {
        let (terms, file) = copy(pages, file, display).await?;
        file.finish()?;
        terms
    };
    durable::publish(&disk, &temporary, path)?;
    Ok(terms)
}

/// Writes page after page; hands the writer back, flushed.
async fn copy<W: Write>(
    mut pages: TermPages,
    mut out: W,
    display: bool,
) -> Result<(u64, W), anyhow::Error> {
    let progress = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {pos} terms ({per_sec})") {
        progress.set_style(style);
    }
    progress.enable_steady_tick(Duration::from_millis(200));
    let mut terms = 0;
    while let Some(page) = pages.next().await? {
        for suggestion in &page {
            for count in loadable(suggestion.count) {
                write!(out, "{}\t{count}", suggestion.term)?;
                if display {
                    write!(out, "\t{}", suggestion.display)?;
                }
                out.write_all(b"\n")?;
            }
        }
        terms += page.len() as u64;
        progress.set_position(terms);
    }
    out.flush()?;
    progress.finish_and_clear();
    Ok((terms, out))
}

/// A count in parts that `load` takes, and that add up to it. None for 0, which no term has.
fn loadable(count: u64) -> impl DoubleEndedIterator<Item = u64> {
    let rest = count % limits::RECORD_COUNT_MAX;
    (0..count / limits::RECORD_COUNT_MAX)
        .map(|_| limits::RECORD_COUNT_MAX)
        .chain((rest > 0).then_some(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = limits::RECORD_COUNT_MAX;

    #[test]
    fn a_count_is_written_in_parts_that_can_be_loaded() {
        for (count, expected) in [
            (0, vec![]),
            (1, vec![1]),
            (MAX - 1, vec![MAX - 1]),
            (MAX, vec![MAX]),
            (MAX + 1, vec![MAX, 1]),
            (2 * MAX, vec![MAX, MAX]),
            (3 * MAX + 7, vec![MAX, MAX, MAX, 7]),
        ] {
            assert_eq!(loadable(count).collect::<Vec<_>>(), expected, "{count}");
        }
    }

    #[test]
    fn the_highest_count_has_parts_too() {
        let mut parts = loadable(u64::MAX);
        let (lines, most) = parts.size_hint();
        assert_eq!(most, Some(lines));
        let rest = parts.next_back().unwrap();
        let ends = (parts.next(), parts.next_back());
        assert_eq!(ends, (Some(MAX), Some(MAX)));
        // All parts but the last are equal.
        let whole = u64::try_from(lines).unwrap() - 1;
        assert_eq!((whole, whole * MAX + rest), (18_446_744, u64::MAX));
    }
}
