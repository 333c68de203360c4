//! Running what the documentation shows.
//!
//! Every `console` block of the READMEs and the book is taken. A command of `convzoo` is run, in a folder of its page's
//! own, and what is shown below it compared with what it prints; a block that cannot be run says why in a comment before
//! it, `<!-- not run: REASON -->`, or is followed by what it once printed, as `text,recorded`, and has its options checked.
//! `jq` and `cd` are left to a shell in the repository; `cargo`, which would build, to the other steps of continuous
//! integration.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{root, write_whole};

/// Arguments of `docs`.
#[derive(clap::Args, Default)]
pub struct Args {
    /// Only these pages, relative to the repository
    pages: Vec<PathBuf>,
    /// Put what commands print in place of what pages show
    #[arg(long)]
    write: bool,
    /// A convzoo that is built already [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// Commands whose output has no figure that varies.
const EXACT: [&str; 5] = ["list", "summary", "shape", "recipes", "devices"];

/// Files of the data beside the repository, and the names that pages give them.
const FIXTURES: [(&str, &str); 4] = [
    ("photos/n02793495_barn.jpg", "photo.jpg"),
    ("photos", "photos"),
    ("mnist-t10k", "mnist-t10k"),
    ("weights/squeezenet1_0-imagenet.safetensors", "squeezenet1_0.safetensors"),
];

/// The words of a comment that says why a block is not run.
const NOT_RUN: &str = "<!-- not run: ";

/// What begins the block of an output that took too long to be made each time.
const RECORDED: &str = "```text,recorded";

/// The longest that a command of the pages may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A fenced block of commands, and what is shown of what they print.
struct Block {
    line: usize,
    /// Each with what is shown below it in the block.
    commands: Vec<(String, Option<Shown>)>,
    /// Why it is not run.
    reason: Option<String>,
    /// What is shown of all of them in the block of text that follows, with an empty line between one and the next.
    after: Option<Shown>,
}

/// Lines of a page: the first, counted from 0, and the text.
#[derive(Debug, Clone, PartialEq)]
struct Shown {
    line: usize,
    text: String,
}

/// What is shown, the command that prints it, and what that prints.
struct Compared {
    shown: Shown,
    command: String,
    printed: String,
}

/// Runs the blocks of all pages, or of some.
pub fn run(args: &Args) -> Result<()> {
    let binary = match &args.binary {
        Some(binary) => binary.canonicalize().with_context(|| format!("looking for {}", binary.display()))?,
        None => crate::ci::built("convzoo")?,
    };
    let pages = if args.pages.is_empty() { all_pages()? } else { args.pages.clone() };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for page in pages {
        let path = root().join(&page);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let folder = fixtures()?;
        let mut changes = Vec::new();
        for block in blocks(&text) {
            let place = format!("{}:{}", page.display(), block.line);
            match check(&block, &binary, folder.path()) {
                Ok((what, compared)) => {
                    *counts.entry(what).or_default() += 1;
                    changes.extend(compared);
                }
                Err(error) => wrong.push(format!("{place}: {error:#}")),
            }
        }
        let (new, differing) = compared(&text, changes);
        match args.write {
            true if new != text => write_whole(&path, &new)?,
            true => {}
            false => wrong.extend(differing.into_iter().map(|line| format!("{}:{line}", page.display()))),
        }
    }
    for (what, count) in counts {
        println!("{count:4} blocks {what}");
    }
    if !wrong.is_empty() {
        bail!(
            "the documentation shows what is not so (`cargo xtask docs --write` puts outputs right):\n{}",
            wrong.join("\n")
        );
    }
    Ok(())
}

fn all_pages() -> Result<Vec<PathBuf>> {
    let mut pages: Vec<PathBuf> = ["README.md", "README.zh-CN.md"].map(PathBuf::from).to_vec();
    let mut folders = vec![PathBuf::from("docs/src")];
    while let Some(folder) = folders.pop() {
        let path = root().join(&folder);
        for entry in fs::read_dir(&path).with_context(|| format!("reading {}", path.display()))? {
            let entry = entry.with_context(|| format!("reading {}", path.display()))?;
            let page = folder.join(entry.file_name());
            match entry.path() {
                path if path.is_dir() => folders.push(page),
                path if path.extension().is_some_and(|extension| extension == "md") => pages.push(page),
                _ => {}
            }
        }
    }
    pages.sort();
    Ok(pages)
}

/// A folder with the files that pages name, as far as they are on this machine.
fn fixtures() -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir().context("making a temporary folder")?;
    let data = crate::ci::shared().join("data");
    #[cfg(unix)]
    for (file, name) in FIXTURES {
        if let Ok(file) = data.join(file).canonicalize() {
            std::os::unix::fs::symlink(file, folder.path().join(name)).with_context(|| format!("linking {name}"))?;
        }
    }
    #[cfg(not(unix))]
    let _ = data;
    Ok(folder)
}

fn blocks(text: &str) -> Vec<Block> {
    let lines: Vec<&str> = text.lines().collect();
    let (mut blocks, mut at) = (Vec::new(), 0);
    while at < lines.len() {
        let Some(info) = lines[at].strip_prefix("```") else {
            at += 1;
            continue;
        };
        let end =
            lines[at + 1..].iter().position(|line| line.starts_with("```")).map_or(lines.len(), |end| at + 1 + end);
        if info == "console" {
            let before = lines[..at].iter().rev().find(|line| !line.is_empty());
            let reason = before.and_then(|line| line.strip_prefix(NOT_RUN)?.strip_suffix(" -->")).map(str::to_owned);
            let starts: Vec<usize> = (at + 1..end).filter(|&line| lines[line].starts_with("$ ")).collect();
            let ends = starts.iter().skip(1).copied().chain([end]);
            let commands = starts.iter().zip(ends).map(|(&start, next)| {
                let text = lines[start + 1..next].join("\n");
                (lines[start][2..].to_owned(), (next > start + 1).then_some(Shown { line: start + 1, text }))
            });
            let recorded = lines.get(end + 1..end + 3).is_some_and(|next| next[0].is_empty() && next[1] == RECORDED);
            let reason = reason.or_else(|| recorded.then(|| "what it printed is recorded".to_owned()));
            let is_text = lines.get(end + 1..end + 3).is_some_and(|next| next[0].is_empty() && next[1] == "```text");
            let after = is_text.then(|| {
                let length = lines[end + 3..].iter().position(|line| line.starts_with("```")).unwrap_or(0);
                Shown { line: end + 3, text: lines[end + 3..end + 3 + length].join("\n") }
            });
            blocks.push(Block { line: at + 1, commands: commands.collect(), reason, after });
        }
        at = end + 1;
    }
    blocks
}

/// Runs a block: what was done with it, and what is to be compared.
fn check(block: &Block, binary: &Path, folder: &Path) -> Result<(String, Vec<Compared>)> {
    let done = |what: &str| Ok((what.to_owned(), Vec::new()));
    let commands = || block.commands.iter().map(|(command, _)| command.as_str());
    let program = |command: &str| command.split_whitespace().next().unwrap_or_default().to_owned();
    let downloads = || commands().any(|command| command.contains("imagenet1k_"));
    let reason = block.reason.clone().or_else(|| downloads().then(|| "it downloads weights".to_owned()));
    if let Some(reason) = reason {
        for command in commands().filter(|command| command.starts_with("convzoo ")) {
            parses(command, binary, folder)?;
        }
        return Ok((format!("not run: {reason}"), Vec::new()));
    }
    if commands().all(|command| program(command) == "cargo") {
        return done("of cargo, left to continuous integration");
    }
    let shell = commands().all(|command| ["jq", "cd"].contains(&program(command).as_str()));
    if shell && Command::new("jq").arg("--version").output().is_err() {
        return done("of jq, which is not here");
    }
    if let Some(other) = commands().map(program).find(|program| !shell && program != "convzoo") {
        bail!("`{other}` is not run here: say why before the block, `{NOT_RUN}REASON -->`");
    }
    let is_missing = |word: &str| FIXTURES.iter().any(|(_, name)| word == *name) && !folder.join(word).exists();
    if commands().any(|command| command.split_whitespace().any(is_missing)) {
        return done("not run: they need data that is not here");
    }
    if shell {
        // `cd` is for all that follows.
        let script = commands().collect::<Vec<_>>().join("\n");
        let printed = succeed(Command::new("sh").arg("-ec").arg(&script).current_dir(root()))?;
        let shown =
            block.commands.iter().filter_map(|(command, shown)| Some((command.clone(), shown.clone()?))).next_back();
        let compared = shown.map(|(command, shown)| Compared { shown, command, printed });
        return Ok(("run by a shell".to_owned(), compared.into_iter().collect()));
    }
    let (mut compared, mut all) = (Vec::new(), Vec::new());
    for (command, shown) in &block.commands {
        let path = path_with(binary)?;
        let printed = succeed(Command::new("sh").arg("-ec").arg(command).current_dir(folder).env("PATH", path))?;
        all.push(printed.clone());
        compared.extend(shown.clone().map(|shown| Compared { shown, command: command.clone(), printed }));
    }
    if let (Some(shown), Some(command)) = (&block.after, commands().next()) {
        compared.push(Compared { shown: shown.clone(), command: command.to_owned(), printed: all.join("\n\n") });
    }
    Ok((if compared.is_empty() { "run" } else { "run and compared" }.to_owned(), compared))
}

/// The search path with the program's folder first.
fn path_with(binary: &Path) -> Result<std::ffi::OsString> {
    let own = binary.parent().context("the program lies in a folder")?.to_path_buf();
    let rest = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths([own].into_iter().chain(std::env::split_paths(&rest))).context("making a search path")
}

/// Whether the program takes these options; it is not run.
fn parses(command: &str, binary: &Path, folder: &Path) -> Result<()> {
    let command = command.split(" #").next().unwrap_or_default();
    if command.contains('…') || command.contains(['|', '[', '>']) {
        return Ok(());
    }
    let script = format!("{command} --help");
    succeed(Command::new("sh").arg("-ec").arg(script).current_dir(folder).env("PATH", path_with(binary)?)).map(drop)
}

fn succeed(command: &mut Command) -> Result<String> {
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .spawn()
        .context("starting a shell")?;
    let started = Instant::now();
    let status = loop {
        match child.try_wait().context("waiting for a command")? {
            Some(status) => break status,
            None if started.elapsed() > PATIENCE => {
                child.kill().context("ending a command")?;
                bail!("it takes more than {} s: say before the block that it is not run", PATIENCE.as_secs());
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let [stdout, stderr] = [&mut stdout, &mut stderr].map(|file| {
        let mut text = String::new();
        file.rewind().and_then(|()| file.read_to_string(&mut text)).map(|_| text)
    });
    let (stdout, stderr) = (stdout.context("reading an output")?, stderr.context("reading an output")?);
    if !status.success() {
        let script: Vec<_> = command.get_args().skip(1).map(|word| word.to_string_lossy()).collect();
        bail!("`{}` ended with {status}: {}", script.join(" "), stderr.trim_end());
    }
    Ok(stdout.trim_end().to_owned())
}

/// The page with what was printed in place of what it shows where they differ, and the lines from which they do.
fn compared(text: &str, changes: Vec<Compared>) -> (String, Vec<String>) {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut differing = Vec::new();
    for Compared { shown: Shown { line, text }, command, printed } in changes.into_iter().rev() {
        let exact = EXACT.iter().any(|name| command.split_whitespace().nth(1) == Some(*name));
        if !alike(&text, &printed, exact) {
            differing.push(format!("{} `{command}` prints\n{printed}\n  and the page shows\n{text}", line + 1));
            lines.splice(line..line + text.lines().count(), printed.lines().map(str::to_owned));
        }
    }
    (lines.join("\n") + "\n", differing)
}

/// Whether an output is as shown: to the letter or, where figures vary, but for digits and spaces. A line `…` stands for
/// any lines.
fn alike(shown: &str, printed: &str, exact: bool) -> bool {
    let plain = |line: &str| match exact {
        true => line.to_owned(),
        false => {
            let kept = line.chars().filter(|character| !character.is_ascii_digit() && !" .,-–".contains(*character));
            kept.collect()
        }
    };
    let shown: Vec<String> = shown.lines().map(plain).collect();
    let printed: Vec<String> = printed.lines().map(plain).collect();
    let mut parts = shown.split(|line| line == "…").peekable();
    let mut at = 0;
    let mut is_first = true;
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        let found = match (is_first, is_last) {
            (true, true) => (printed == part).then_some(0),
            (true, false) => printed.starts_with(part).then_some(0),
            (false, true) => printed[at..].ends_with(part).then(|| printed.len() - part.len()),
            (false, false) => {
                printed[at..].windows(part.len().max(1)).position(|lines| lines == part).map(|from| at + from)
            }
        };
        let Some(from) = found else { return false };
        (at, is_first) = (from + part.len(), false);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# A page\n\n```console\n$ convzoo list x\n$ convzoo summary y\n```\n\n```text\na 1\nb 2\n```\n\n\
                        <!-- not run: it takes an hour -->\n```console\n$ convzoo train\nepoch 1\n…\nbest\n```\n";

    #[test]
    fn blocks_are_found_with_what_they_show_and_why_they_are_not_run() {
        let shown = |line, text: &str| Some(Shown { line, text: text.to_owned() });
        let recorded = "```console\n$ convzoo train\n```\n\n```text,recorded\nepoch 1\n```\n";
        assert_eq!(blocks(recorded)[0].reason.as_deref(), Some("what it printed is recorded"));
        let [first, second] = blocks(PAGE).try_into().unwrap_or_else(|_| panic!("two blocks"));
        assert_eq!((first.line, first.commands.len(), first.reason), (3, 2, None));
        assert_eq!(first.after, shown(8, "a 1\nb 2"));
        assert_eq!(second.reason.as_deref(), Some("it takes an hour"));
        assert_eq!(second.commands[0], ("convzoo train".to_owned(), shown(15, "epoch 1\n…\nbest")));
    }

    #[test]
    fn outputs_differ_by_words_and_where_they_are_exact_by_digits() {
        assert!(alike("epoch 1\n…\nbest 98.33%", "epoch 1\nepoch 2\nbest 97.5%", false));
        assert!(!alike("epoch 1\n…\nbest", "epoch 1\nlast", false));
        assert!(!alike("a 1", "a 2", true) && alike("a 1", "a 2", false));
        assert!(!alike("a\n…\nb", "b\na\nb", false));
        let shown = Shown { line: 8, text: "a 1\nb 2".to_owned() };
        let change = Compared { shown, command: "convzoo list x".to_owned(), printed: "c 3".to_owned() };
        let (new, differing) = compared(PAGE, vec![change]);
        assert!(new.contains("```text\nc 3\n```") && differing.len() == 1, "{new}");
    }
}
