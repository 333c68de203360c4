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
use std::sync::{Mutex, MutexGuard, PoisonError};

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

/// Held by whoever runs a section: tests share the device's generator, and a section's numbers follow from its seed.
fn alone() -> MutexGuard<'static, ()> {
    static RUNNING: Mutex<()> = Mutex::new(());
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a section of the example prints.
fn section(arguments: &[&str]) -> String {
    let _alone = alone();
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

/// A fenced block: what follows the opening fence, and what is between the fences.
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

/// The text between the anchors of a file that an `{{#include …}}` line names.
fn quoted(page: &Path, include: &str) -> String {
    let target = include.strip_prefix("{{#include ").and_then(|rest| rest.strip_suffix("}}"));
    let (path, anchor) = target.and_then(|target| target.rsplit_once(':')).expect(include);
    let program = fs::read_to_string(page.parent().unwrap().join(path)).unwrap_or_else(|error| {
        panic!("{} quotes {path}: {error}", page.display());
    });
    let (start, end) = (format!("// ANCHOR: {anchor}\n"), format!("// ANCHOR_END: {anchor}\n"));
    let after = program.split_once(&start).map(|(_, after)| after);
    let between = after.and_then(|after| after.split_once(&end)).map(|(between, _)| between);
    between.unwrap_or_else(|| panic!("{} quotes {target:?}, which is not marked", page.display())).to_owned()
}

#[test]
fn pages_quote_their_programs_by_inclusion() {
    for folder in ["course", "course/zh"] {
        for name in pages(&docs().join(folder)).into_iter().filter(|name| name != "README.md") {
            let page = docs().join(folder).join(&name);
            let text = fs::read_to_string(&page).unwrap();
            let code: Vec<_> = blocks(&text).into_iter().filter(|block| block.info.starts_with("rust")).collect();
            assert!(!code.is_empty(), "{folder}/{name} quotes no code");
            for block in code {
                let lines = quoted(&page, block.text.trim()).lines().count();
                assert!((3..=20).contains(&lines), "{folder}/{name} quotes {lines} lines: {}", block.text);
            }
        }
    }
}

/// What a reader finds on every page.
#[test]
fn every_page_teaches_in_the_same_way() {
    let parts = [
        ("course", ["*You will learn*", "y hand", "## Exercises\n\n1. ", "**Answers.** 1. "]),
        ("course/zh", ["*你将学到*", "手算", "## 练习\n\n1. ", "**答案。** 1. "]),
    ];
    // A second exercise, a command, a picture, the program.
    let common = ["\n2. ", "\n$ ", "\n![", "`examples/course/"];
    for (folder, parts) in parts {
        for name in pages(&docs().join(folder)).into_iter().filter(|name| name != "README.md") {
            let page = fs::read_to_string(docs().join(folder).join(&name)).unwrap();
            for part in parts.into_iter().chain(common) {
                assert!(page.contains(part), "{folder}/{name} lacks {part:?}");
            }
        }
    }
}

#[test]
fn chinese_pages_explain_outputs_and_say_which_links_are_english() {
    for name in pages(&docs().join("course/zh")) {
        let page = fs::read_to_string(docs().join("course/zh").join(&name)).unwrap();
        let outputs = blocks(&page).iter().filter(|block| block.info.starts_with("text")).count();
        let explanations = page.lines().filter(|line| line.starts_with('（')).count();
        assert!(explanations >= outputs, "{name}: {outputs} outputs, {explanations} explanations");
        for (before, after) in page.match_indices("](../../").map(|(at, _)| page.split_at(at)) {
            let is_picture = before.rsplit_once('[').is_some_and(|(start, _)| start.ends_with('!'));
            let rest = after.split_once(')').unwrap().1;
            assert!(is_picture || rest.starts_with("（英文）"), "{name}: {} is English", &after[..after.len().min(40)]);
        }
    }
}

/// Relative links lead to a file, and to a heading of it where they name one.
#[test]
fn links_of_the_pages_lead_somewhere() {
    let mut links = 0;
    for folder in ["course", "course/zh", "families", "."] {
        for name in pages(&docs().join(folder)) {
            let page = docs().join(folder).join(&name);
            let text = fs::read_to_string(&page).unwrap();
            for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                if target.contains("://") || target.starts_with('#') || target.contains(char::is_whitespace) {
                    continue;
                }
                let (path, heading) = target.split_once('#').unwrap_or((target, ""));
                let linked = page.parent().unwrap().join(path);
                assert!(linked.exists(), "{folder}/{name} links to {target}, which is not there");
                if !heading.is_empty() {
                    let headings = fs::read_to_string(&linked).unwrap();
                    let found =
                        headings.lines().filter(|line| line.starts_with('#')).any(|line| anchor(line) == heading);
                    assert!(found, "{folder}/{name} links to {target}, which has no such heading");
                }
                links += 1;
            }
        }
    }
    assert!(links > 200, "only {links} links were found");
}

/// The anchor that mdBook gives a heading.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
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
            // A path from the Chinese pages has a folder more.
            let b = b.replace("{{#include ../", "{{#include ");
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
        ("lenet", &["for images of 3×32×32: 456 parameters in c1, 62,006 in all"]),
        ("edges", &["1, 1, 1 0.333 94.9 %", "1, 2, 1 0.375 97.5 %", "3, 10, 3 0.461 99.5 %"]),
        ("activations", &["1 1 0.7311 0.1966 0.196612"]),
        ("alexnet", &["208.0 MiB", "60,965,224 62,378,344", "fc6 and fc7: 54,534,144 weights"]),
        ("googlenet", &["inception 3a 163,328 159.5K 159K 128.0M 128M", "inception 4c 509,440 497.5K 463K"]),
        ("stochastic-depth", &["18 0.833 1.2", "40.25 of 54"]),
        ("fractal", &["3 7 4 5", "4 15 8 26"]),
        ("wide", &["10 230,400 23,040", "36,479,194"]),
        ("resnext", &["1 of 64 16,384 36,864 16,384 69,632", "32 of 4 32,768 4,608 32,768 70,144"]),
        ("squeeze", &["fire module 11,920", "one 3×3, 96 to 128 110,720", "squeezenet1_0 1,248,424 4.8"]),
        ("receptive", &["7×7 7×7", "3×3, 3×3, 3×3 7×7", "64 200,704 110,592 55 %"]),
        ("hog", &["9 · 4 · 9 = 324 features"]),
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

/// Figures of the text that follow from those of the outputs, or from what it cites.
const DERIVED: [usize; 19] = [
    28 * 28 * 256 * 64 + 28 * 28 * 5 * 5 * 64 * 96, // Inception's 5×5 path after its reduction
    5 * 5 * 256,                                    // and the values of a filter without it
    512 * 7 * 7,                                    // VGG's last map
    3 * 32 * 32,                                    // a small colour image
    1024,                                           // the thousand of GoogLeNet's table
    7 * 3 * 64 * 2,                                 // its first filter in two steps
    163_328 * 28 * 28,                              // multiply-adds of its module 3a
    192 * 96 + 9 * 96 * 128,                        // its 3×3 path in module 3a
    192 * 16 + 25 * 16 * 32,                        // and the 5×5 path
    1_442_816 * 7 * 7,                              // multiply-adds of module 5b
    64_000,                                         // steps of the ResNet paper
    (512 + 1) * 20,                                 // a new head of ResNet-18
    HAND_SIGNS - 411,                               // photographs to train on
    DIGITS,                                         // the embedded digits
    DIGITS - DIGITS.div_ceil(5),                    // and those of them to train on
    10_000 - 2_000,                                 // MNIST's test images to train on
    NIN_CIFAR,                                      // NiN's parameters
    (512 * 13 * 13 + 1) * 1000,                     // SqueezeNet's classifier as a fully-connected layer
    9 * 256 * 256,                                  // a 3×3 convolution on 256 channels
];

/// Digits that are part of the program, and parameters of the network `nin_cifar`.
const DIGITS: usize = 1_797;
const NIN_CIFAR: usize = 966_986;

#[test]
fn the_digits_and_nin_are_as_the_text_says() {
    let digits = open("digits", &Source::default()).unwrap();
    assert_eq!((digits.train.len(), digits.test.len()), (1_437, 360));
    assert_eq!(digits.train.len() + digits.test.len(), DIGITS);
    let nin = convzoo::create("nin_cifar", &convzoo::Options::default(), &burn::tensor::Device::flex()).unwrap();
    let summary = nin.summary(nin.input()).unwrap();
    assert_eq!((summary.params, summary.macs / 1_000_000), (NIN_CIFAR, 222));
}

/// The photographs of hands, 204 to 208 of each sign, of which a fifth is for testing.
const HAND_SIGNS: usize = 205 + 206 + 206 + 206 + 207 + 207 + 207 + 206 + 208 + 204;

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

/// Small figures of the text, in both languages, that follow from a line of arithmetic.
#[test]
fn what_the_pages_work_out_by_hand_is_right() {
    let error = |w: f64| (2.0 * w - 6.0).powi(2);
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let survival = |block: f64| 1.0 - 0.5 * block / 54.0;
    let all_survive: f64 = (1..=54).map(|block| survival(f64::from(block))).product();
    let figures: &[(&str, &str, f64, usize)] = &[
        ("edges", "15.84", error(1.01), 2),
        ("edges", "13.5", error(1.16), 1),
        ("edges", "14.7", -4.0 * (2.0 * 1.16 - 6.0), 1),
        ("edges", "11.5", error(1.16 + 0.01 * 4.0 * (6.0 - 2.0 * 1.16)), 1),
        ("alexnet", "43.9", 100.0 / (2.0f64 + 1e-4 * 1e4).powf(0.75), 1),
        ("alexnet", "23.2", 100.0 / (2.0f64 + 1e-4 * 5e4).powf(0.75), 1),
        ("activations", "0.0431", sigmoid(1.0) * sigmoid(-1.0) * sigmoid(sigmoid(1.0)) * sigmoid(-sigmoid(1.0)), 4),
        ("initialization", "0.125", (2.0f64 / 128.0).sqrt(), 3),
        ("initialization", "0.177", (2.0f64 / 64.0).sqrt(), 3),
        ("initialization", "0.059", (2.0f64 / 576.0).sqrt(), 3),
        ("batch-norm", "1.469", -(2.0 * (1.0 - 5.0) / 10.5f64.sqrt() + 1.0), 3),
        ("why-batch-norm", "1.069", 2.0 / 3.5f64.sqrt(), 3),
        ("dropout", "1.805", 2.0 * 0.95 * 0.95, 3),
        ("residual", "0.0012", 0.8f64.powi(30), 4),
        ("stochastic-depth", "0.833", survival(18.0), 3),
        ("stochastic-depth", "40.25", (1..=54).map(|block| survival(f64::from(block))).sum(), 2),
        ("stochastic-depth", "4.5", all_survive * 1e8, 1),
        ("fractal", "0.055", (0.1 + 0.1 * 0.1) / 2.0, 3),
        ("fractal", "677", 1.0 + 26.0 * 26.0, 0),
        ("augment", "338", 13.0 * 13.0 * 2.0, 0),
        ("augment", "55", 100.0 * 0.3f64.sqrt(), 0),
        ("ten-crop", "0.58", (0.9 + 0.4 + 0.45) / 3.0, 2),
    ];
    for (name, figure, value, decimals) in figures {
        assert_eq!(format!("{value:.decimals$}"), *figure, "{name}");
        for folder in ["course", "course/zh"] {
            let page = fs::read_to_string(docs().join(folder).join(format!("{name}.md"))).unwrap();
            let text: String = page.split("```").step_by(2).collect();
            assert!(text.contains(figure), "{folder}/{name}.md does not say {figure}");
        }
    }
}

#[test]
fn googlenets_page_counts_right() {
    let network = convzoo::create("googlenet", &convzoo::Options::default(), &burn::tensor::Device::flex()).unwrap();
    let summary = network.summary(network.input()).unwrap();
    let inference: usize = summary.layers.iter().map(|layer| layer.params).sum();
    assert_eq!((summary.params, inference), (13_004_888, 6_624_904));
    let naive = convzoo::blocks::InceptionConfig::naive(192, [64, 128, 32]);
    assert_eq!(192 * 64 + 9 * 192 * 128 + 25 * 192 * 32, 387_072);
    assert_eq!(naive.outputs(), 64 + 128 + 32 + 192);
    let page = fs::read_to_string(docs().join("families/googlenet.md")).unwrap();
    for figure in ["13,004,888", "6,624,904", "387,072", "223,744", "175,415,296"] {
        assert!(page.contains(figure), "{figure} is not on the page");
    }
    assert_eq!((387_072 - 163_328, 784 * (387_072 - 163_328)), (223_744, 175_415_296));
    let naive_256 = convzoo::blocks::InceptionConfig::naive(256, [128, 192, 96]);
    let reduced = convzoo::blocks::InceptionConfig::v1(256, [128, 64, 192, 64, 96, 64], 5);
    assert_eq!((naive_256.outputs(), reduced.outputs()), (672, 480));
}

#[test]
fn sections_that_train_run_and_draw() {
    let folder = support::temp();
    let out = folder.path().to_str().unwrap();
    let cases: [(&[&str], &str); 10] = [
        (&["activations", "--train", "--steps", "20", "--pictures", out], "activations-lenet.svg"),
        (&["initialization", "--train", "--steps", "20", "--pictures", out], "initialization-loss.svg"),
        (&["dropout", "--train", "--steps", "20", "--runs", "2", "--images", "40", "--pictures", out], "dropout.svg"),
        (&["why-batch-norm", "--train", "--steps", "10", "--pictures", out], "why-batch-norm.svg"),
        (&["residual", "--pictures", out], "residual-gradients.svg"),
        (&["stochastic-depth", "--train", "--steps", "4", "--runs", "1", "--pictures", out], "survival.svg"),
        (&["wide", "--measure", "--pictures", out], "wide.svg"),
        (&["squeeze", "--pictures", out], "squeezenet.svg"),
        (&["batch-norm", "--pictures", out], "batch-norm.svg"),
        (&["transfer", "--pictures", out], "transfer.svg"),
    ];
    for (arguments, picture) in cases {
        let printed = section(arguments);
        assert!(printed.lines().count() > 4, "{arguments:?}: {printed}");
        let chart = fs::read_to_string(folder.path().join(picture)).unwrap();
        assert!(chart.starts_with("<svg"), "{picture}: {chart}");
    }
    assert!(section(&["pooling", "--train", "--steps", "5"]).contains("LeNet-5 after 5 steps, 5 runs"));
    assert!(section(&["fractal", "--train", "--steps", "5"]).contains("trained, 5 steps, with"));
    let trained = section(&["hog", "--train", "--steps", "20"]);
    assert!(trained.contains("LeNet-5") && trained.contains("324 features"), "{trained}");
}

#[test]
fn the_well_known_358_million_counts_a_path_twice() {
    // The 3×3 path's 192 · 64 · 9 multiply-adds at 28 · 28 positions, once more than there are.
    assert_eq!(358_055_936, 271_351_808 + 192 * 64 * 9 * 28 * 28);
}

#[test]
fn plain_and_residual_networks_are_trained_and_drawn_and_not_twice() {
    let _alone = alone();
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
    let cases: [&[&str]; 9] = [
        &["edges"],
        &["stride"],
        &["channels"],
        &["pooling"],
        &["augment", photograph],
        &["ten-crop", photograph],
        &["receptive"],
        &["hog"],
        &["resnext"],
    ];
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
