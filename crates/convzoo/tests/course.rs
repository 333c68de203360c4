//! The course: its pages show what its programs print, in both languages, and the figures of the lecture notes hold.
//!
//! `UPDATE_COURSE=1 cargo test --workspace --test course pages_show` writes what the programs print into the pages.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod support;

// The program itself, so that its sections run without a second build.
#[allow(dead_code)]
#[path = "../../../examples/course/main.rs"]
mod course;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use convzoo::data::{Source, open};

const EXAMPLE: &str = "cargo run --release --example course --";

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src")
}

/// The pages of a folder by name.
fn pages(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut pages: Vec<_> = names.filter(|name| name.ends_with(".md")).collect();
    pages.sort();
    pages
}

/// What a section of the example prints.
fn section(arguments: &[&str]) -> String {
    let arguments = course::Arguments::try_parse_from([&["course"], arguments].concat()).unwrap();
    let mut printed = Vec::new();
    course::run(arguments, &mut printed).unwrap();
    String::from_utf8(printed).unwrap().trim_end().to_owned()
}

/// What a command line of the pages prints.
fn output(command: &str) -> String {
    if let Some(arguments) = command.strip_prefix(EXAMPLE) {
        return section(&arguments.split_whitespace().collect::<Vec<_>>());
    }
    let arguments: Vec<_> = command.strip_prefix("convzoo ").expect(command).split_whitespace().collect();
    let folder = support::temp();
    let output = support::convzoo(folder.path(), &arguments);
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// A fenced block: what stands behind the opening fence, and what stands between the fences.
struct Block {
    info: String,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        match line.strip_prefix("```") {
            Some(info) if !inside => blocks.push(Block { info: info.to_owned(), text: String::new() }),
            Some(_) => {}
            None if inside => blocks.last_mut().unwrap().text += &format!("{line}\n"),
            None => continue,
        }
        inside ^= line.starts_with("```");
    }
    blocks
}

#[test]
fn pages_show_what_their_commands_print() {
    let update = std::env::var_os("UPDATE_COURSE").is_some();
    let mut shown = 0;
    for name in pages(&docs().join("course")) {
        let page = fs::read_to_string(docs().join("course").join(&name)).unwrap();
        // An output that took long is marked `text,recorded` and not made again.
        for pair in blocks(&page).windows(2).filter(|pair| pair[0].info == "console" && pair[1].info == "text") {
            let commands = pair[0].text.lines().filter_map(|line| line.strip_prefix("$ "));
            let printed = commands.map(output).collect::<Vec<_>>().join("\n\n") + "\n";
            shown += 1;
            if update {
                for folder in ["course", "course/zh"] {
                    let path = docs().join(folder).join(&name);
                    let block = |text: &str| format!("```console\n{}```\n\n```text\n{text}```", pair[0].text);
                    let (before, after) = (block(&pair[1].text), block(&printed));
                    let page = fs::read_to_string(&path).unwrap();
                    assert!(page.contains(&before), "{} has another output below {}", path.display(), pair[0].text);
                    fs::write(path, page.replace(&before, &after)).unwrap();
                }
                continue;
            }
            for (number, (is, shows)) in printed.lines().zip(pair[1].text.lines()).enumerate() {
                assert_eq!(is, shows, "{name} shows another line {} below {}", number + 1, pair[0].text);
            }
            assert_eq!(printed.lines().count(), pair[1].text.lines().count(), "{name}, lines below {}", pair[0].text);
        }
    }
    assert!(shown > 10, "only {shown} outputs were found in the pages");
}

#[test]
fn every_page_is_there_in_both_languages_with_the_same_commands_and_pictures() {
    let (english, chinese) = (docs().join("course"), docs().join("course/zh"));
    assert_eq!(pages(&english), pages(&chinese), "a page lacks its translation");
    let summary = fs::read_to_string(docs().join("SUMMARY.md")).unwrap();
    for name in pages(&english) {
        let [one, other] = [&english, &chinese].map(|folder| fs::read_to_string(folder.join(&name)).unwrap());
        for link in [format!("(course/{name})"), format!("(course/zh/{name})")] {
            assert!(summary.contains(&link), "SUMMARY.md lacks {link}");
        }
        assert!(
            one.contains(&format!("(zh/{name})")) && other.contains(&format!("(../{name})")),
            "{name}: no way across"
        );
        let code = |page| blocks(page).into_iter().map(|block| (block.info, block.text)).collect::<Vec<_>>();
        for ((info, a), (_, b)) in code(&one).into_iter().zip(code(&other)) {
            assert_eq!(a, b, "{name}: a {info} block differs between the languages");
        }
        let count = |page: &str, start: &str| page.lines().filter(|line| line.starts_with(start)).count();
        for start in ["#", "```", "!["] {
            assert_eq!(count(&one, start), count(&other, start), "{name}: lines that start with {start}");
        }
    }
}

#[test]
fn the_chinese_readme_has_the_sections_and_commands_of_the_english_one() {
    let root = docs().join("../..");
    let [one, other] = ["README.md", "README.zh-CN.md"].map(|name| fs::read_to_string(root.join(name)).unwrap());
    let headings = |page: &str| page.lines().filter(|line| line.starts_with("## ")).count();
    assert_eq!(headings(&one), headings(&other), "sections");
    let commands = |page: &str| {
        let lines =
            blocks(page).into_iter().flat_map(|block| block.text.lines().map(str::to_owned).collect::<Vec<_>>());
        lines.filter(|line| line.starts_with("$ ") || line.starts_with("cargo ")).collect::<Vec<_>>()
    };
    assert_eq!(commands(&one), commands(&other), "commands");
}

/// Every number that the notes give, in the section that computes it.
#[test]
fn the_figures_of_the_notes_hold() {
    let figures: &[(&str, &[&str])] = &[
        ("edges", &["0  30  30  0", "0  -30  -30  0", "0  40  40  0", "0  160  160  0", "1  0  -1"]),
        ("padding", &["padding 0, 6×6 → 4×4", "padding 1, 6×6 → 6×6", "padding 2, 6×6 → 8×8"]),
        ("stride", &["3×39×39", "10×37×37", "20×17×17", "40×7×7", "1,960"]),
        ("channels", &["3×6×6", "2×4×4", "10 filters of 3×3×3  280", "8 filters of 5×5×3  608", "14,455,392"]),
        ("lenet", &["6×28×28  4,704  156", "16×10×10  1,600  2,416", "120  120  48,120", "84  84  10,164", "61,706"]),
        ("networks", &["60,965,224", "138,357,544"]),
        ("inception", &["854,196,224", "271,351,808", "854 million against 271 million", "120,422,400", "12,443,648"]),
        ("dense", &["10 in the dense block, 4 in a chain"]),
    ];
    for (name, numbers) in figures {
        let printed = section(&[name]);
        // Columns are as wide as their widest cell.
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        for number in *numbers {
            assert!(words(&printed).contains(&words(number)), "`{name}` does not print {number}:\n{printed}");
        }
    }
}

/// Figures of the text that follow from those of the outputs.
const DERIVED: [usize; 4] = [
    28 * 28 * 256 * 64 + 28 * 28 * 5 * 5 * 64 * 96, // Inception's 5×5 path behind its reduction
    5 * 5 * 256,                                    // and the values of a filter without it
    512 * 7 * 7,                                    // VGG's last map
    3 * 32 * 32,                                    // a small colour image
];

#[test]
fn the_text_has_no_figure_that_no_output_shows() {
    // Numbers from 1,000 on, by their commas.
    let figures = |text: &str| {
        let numbers = text.split(|c: char| !c.is_ascii_digit() && c != ',').map(|text| text.trim_matches(','));
        let large = numbers.filter(|text| text.contains(','));
        large.map(|text| text.replace(',', "").parse::<usize>().unwrap()).collect::<Vec<_>>()
    };
    let read = |folder: &str| {
        let pages = pages(&docs().join(folder));
        pages.into_iter().map(|name| fs::read_to_string(docs().join(folder).join(name)).unwrap()).collect::<String>()
    };
    let outputs: String = blocks(&read("course")).into_iter().map(|block| block.text).collect();
    let mut known = figures(&outputs);
    known.extend(DERIVED);
    for folder in ["course", "course/zh"] {
        for figure in figures(&read(folder)) {
            assert!(known.contains(&figure), "{figure} stands in {folder} and in no output there");
        }
    }
}

#[test]
fn the_well_known_358_million_counts_a_path_twice() {
    // The 3×3 path's 192 · 64 · 9 multiply-adds at 28 · 28 positions, once more than there are.
    assert_eq!(358_055_936, 271_351_808 + 192 * 64 * 9 * 28 * 28);
}

#[test]
fn plain_and_residual_networks_are_trained_and_drawn_and_not_twice() {
    let folder = support::temp();
    let out = folder.path().to_str().unwrap();
    let train = |epochs: &str| {
        let networks = ["--networks", "plain20_cifar,resnet20_cifar"];
        let small = ["--data", "digits", "--images", "20", "--batch-size", "10", "--epochs", epochs, "--out", out];
        course::Arguments::try_parse_from([&["course", "depth"], &networks[..], &small[..]].concat()).unwrap()
    };
    let mut first = Vec::new();
    course::run(train("1"), &mut first).unwrap();
    let record = fs::read(folder.path().join("plain20_cifar/run.json")).unwrap();
    let printed = String::from_utf8(first.clone()).unwrap();
    assert!(printed.contains("plain20_cifar") && printed.contains("resnet20_cifar"), "{printed}");
    for name in ["train.svg", "test.svg"] {
        let chart = fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(chart.starts_with("<svg") && chart.contains("resnet20_cifar"), "{name}: {chart}");
    }

    let mut second = Vec::new();
    course::run(train("1"), &mut second).unwrap();
    assert_eq!(first, second);
    assert_eq!(fs::read(folder.path().join("plain20_cifar/run.json")).unwrap(), record, "the run was repeated");
    let error = course::run(train("2"), &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("other options"), "{error}");
}

#[test]
fn pictures_are_drawn_from_any_photograph() {
    let folder = support::temp();
    let digit = open("digits", &Source::default()).unwrap().train.get(0).unwrap().image;
    let photograph = folder.path().join("photograph.png");
    let pixels = digit.to_rgb().pixels;
    image::RgbImage::from_raw(8, 8, pixels).unwrap().save(&photograph).unwrap();
    let picture = folder.path().join("picture.png");
    let [photograph, path] = [&photograph, &picture].map(|path| path.to_str().unwrap());
    let cases: [&[&str]; 3] = [&["edges"], &["augment", photograph], &["ten-crop", photograph]];
    for arguments in cases {
        section(&[arguments, &["--picture", path]].concat());
        let image = image::open(&picture).unwrap().to_rgb8();
        assert!(image.pixels().any(|pixel| pixel != image.get_pixel(0, 0)), "{arguments:?}: a picture of one colour");
        fs::remove_file(&picture).unwrap();
    }
    let missing = course::Arguments::try_parse_from(["course", "ten-crop", "none.jpg", "--picture", path]).unwrap();
    let error = course::run(missing, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("none.jpg"), "{error}");
}
