//! Runs that survive: killed at any moment, also while a checkpoint is written, and on a disk that is full.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{convzoo, error, json, temp};

/// All that a run can remember: averages, momentum, gradients of several batches, a plateau, shifted images.
const TRAIN: [&str; 31] = [
    "train",
    "--json",
    "--device",
    "flex",
    "--epochs",
    "3",
    "--batch-size",
    "32",
    "--seed",
    "7",
    "--activation",
    "relu",
    "--learning-rate",
    "0.02",
    "--schedule",
    "plateau",
    "--set",
    "schedule.patience=0",
    "--set",
    "ema=0.9",
    "--set",
    "accumulation=2",
    "--set",
    "clip_norm=5",
    "--set",
    "augment.random_crop=2",
    "--val-split",
    "0.1",
    "--checkpoint-every",
    "2",
    "--plain",
];

fn start(folder: &Path, arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_convzoo"));
    command.args(arguments).current_dir(folder).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

fn drafts(checkpoints: &Path) -> usize {
    let entries = fs::read_dir(checkpoints).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b".draft")).count()
}

/// Kills a run `kills` times, at random moments and as often while a checkpoint is written, resumes it each time, and
/// compares what it ends in with an uninterrupted one.
fn survives(kills: usize) {
    let folder = temp();
    let path = folder.path();
    let begun = Instant::now();
    json(path, &[&TRAIN[..], &["--out", "whole"]].concat());
    let whole = begun.elapsed();

    let killed = path.join("killed");
    // A generator of its own keeps a failure repeatable but for the machine's pace.
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / f64::from(1_u32 << 31)
    };
    let mut in_writes = 0;
    for kill in 0..kills {
        let arguments = match killed.join("run.json").exists() {
            true => vec!["train", "--json", "--checkpoint-every", "2", "--resume", "killed"],
            false => [&TRAIN[..], &["--out", "killed"]].concat(),
        };
        let mut child = start(path, &arguments);
        // Loading takes a while; then the runs together make a little more than one.
        let pause = whole.mul_f64(0.1 + 1.5 * random() / kills as f64);
        std::thread::sleep(pause);
        if kill % 2 == 1 {
            while drafts(&killed.join("checkpoints")) == 0 && child.try_wait().unwrap().is_none() {}
        }
        child.kill().unwrap();
        child.wait().unwrap();
        in_writes += drafts(&killed.join("checkpoints"));
    }
    let status = fs::read(killed.join("run.json")).unwrap();
    let status: Value = serde_json::from_slice(&status).unwrap();
    if status["status"] != "finished" {
        json(path, &["train", "--json", "--resume", "killed"]);
    }
    println!("{kills} kills, {in_writes} unfinished checkpoints seen after them");
    assert!(in_writes > 0 || kills < 20, "no kill hit the writing of a checkpoint");

    for file in ["last.safetensors", "best.safetensors"] {
        let read = |run: &str| fs::read(path.join(run).join(file)).unwrap();
        assert!(read("killed") == read("whole"), "{file} differs from the uninterrupted run's");
    }
    let epochs = |run: &str| {
        let record: Value = serde_json::from_slice(&fs::read(path.join(run).join("run.json")).unwrap()).unwrap();
        let epochs = record["epochs"].as_array().unwrap().clone();
        epochs.iter().map(|epoch| (epoch["train"].clone(), epoch["val"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(epochs("killed"), epochs("whole"), "the epochs' figures differ");
    assert_eq!(drafts(&killed.join("checkpoints")), 0, "an unfinished checkpoint was left");
    let finished = error(path, &["train", "--resume", "killed"]);
    assert!(finished.contains("has ended after 3 epochs"), "{finished}");
}

#[test]
fn a_killed_run_resumes_to_the_weights_of_an_uninterrupted_one() {
    survives(4);
}

#[test]
#[ignore = "takes half a minute, and four kills say nearly as much"]
fn twenty_kills_change_nothing() {
    survives(20);
}

fn checkpoints(run: &Path) -> Vec<String> {
    let entries = fs::read_dir(run.join("checkpoints")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A limit on the size of files stands for a full disk: Adam's state is twice as large as the network, and the first
/// checkpoint has none.
#[cfg(unix)]
#[test]
fn a_full_disk_is_an_error_that_leaves_the_earlier_checkpoints() {
    let folder = temp();
    let path = folder.path();
    let train = ["train", "--json", "--epochs", "2", "--optimizer", "adam", "--learning-rate", "0.001", "--out"];
    let script = "trap \"\" XFSZ; ulimit -f 600; exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_convzoo")])
        .args(train)
        .arg("full")
        .current_dir(path)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{told}");
    assert!(told.contains("cannot write the checkpoint") && told.contains("earlier ones are kept"), "{told}");
    assert_eq!(checkpoints(&path.join("full")), ["00001-0000000"], "the first checkpoint, and no draft");

    json(path, &["train", "--json", "--resume", "full"]);
    json(path, &[&train[..], &["whole"]].concat());
    let read = |run: &str| fs::read(path.join(run).join("last.safetensors")).unwrap();
    assert!(read("full") == read("whole"), "the weights differ from those of a run with room");
}

#[test]
fn a_damaged_checkpoint_is_told_and_the_one_before_it_taken() {
    let folder = temp();
    let path = folder.path();
    let train = ["train", "--json", "--epochs", "2", "--out", "run"];
    json(path, &train);
    let weights = || fs::read(path.join("run/last.safetensors")).unwrap();
    let whole = weights();
    let [.., before, last] = &checkpoints(&path.join("run"))[..] else { panic!("fewer than two checkpoints") };
    assert_eq!((before.as_str(), last.as_str()), ("00002-0000000", "00003-0000000"));
    // As if killed after the last checkpoint, of which half a file is left.
    let model = path.join("run/checkpoints").join(last).join("model.bpk");
    let bytes = fs::read(&model).unwrap();
    fs::write(&model, &bytes[..bytes.len() / 2]).unwrap();
    let record = path.join("run/run.json");
    let text = fs::read_to_string(&record).unwrap().replace("\"finished\"", "\"running\"");
    fs::write(&record, text).unwrap();
    let output = convzoo(path, &["train", "--json", "--resume", "run"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && told.contains("cannot read the checkpoint"), "{told}");
    assert!(weights() == whole, "the last weights differ from the first time's");
}

#[test]
fn runs_are_listed_and_compared() {
    let folder = temp();
    let path = folder.path();
    json(path, &["train", "--json", "--epochs", "2", "--out", "runs/first"]);
    json(path, &["train", "--json", "--epochs", "1", "--recipe", "mnist", "--set", "ema=0.9", "--out", "runs/second"]);
    let runs = json(path, &["runs", "--json"]);
    let run = runs.as_array().unwrap().iter().find(|run| run["recipe"] == "mnist").unwrap();
    assert_eq!((&run["model"], &run["data"], &run["epochs"]), (&"lenet5".into(), &"digits".into(), &1.into()));
    assert_eq!(run["run"], PathBuf::from("runs").join("second").to_str().unwrap());
    assert!(run["best"]["test"]["accuracy"].as_f64().unwrap() > 0.1, "{run}");

    let text = String::from_utf8(convzoo(path, &["runs"]).stdout).unwrap();
    assert!(text.contains("lenet5") && text.contains("finished") && text.contains("2/2"), "{text}");
    let compare = ["runs", "--compare", "first", "runs/second", "--html", "both.html", "--chart", "both.svg"];
    let text = String::from_utf8(convzoo(path, &compare).stdout).unwrap();
    // What differs is told, what does not is not.
    assert!(text.contains("ema") && text.contains("augment") && !text.contains("label_smoothing"), "{text}");
    let page = fs::read_to_string(path.join("both.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("runs/second"), "no curves, or no names");
    let chart = fs::read_to_string(path.join("both.svg")).unwrap();
    assert!(chart.starts_with("<svg") && chart.contains("runs/second"), "{chart}");
    let told = error(path, &["runs", "--compare", "first", "second", "--chart", "both.gif"]);
    assert!(told.contains("both.gif"), "{told}");
    let compared = json(path, &["runs", "--compare", "first", "second", "--json"]);
    assert_eq!(compared[0]["history"].as_array().unwrap().len(), 2);
    assert_eq!(compared[1]["settings"]["ema"], 0.9);
}

#[test]
fn a_run_that_chooses_by_validation_images_says_so_in_its_last_lines() {
    let folder = temp();
    let train = ["train", "--epochs", "2", "--val-split", "0.1", "--out", "runs/chosen"];
    let output = convzoo(folder.path(), &train);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(" to choose by, 360 to test on"), "{text}");
    assert!(
        text.contains("best validation accuracy") && text.contains("of those weights, measured this once"),
        "{text}"
    );
    let run = json(folder.path(), &["runs", "--json"]);
    let accuracy = run[0]["test"]["accuracy"].as_f64().unwrap();
    assert!(run[0]["best"]["val"]["accuracy"].is_f64() && run[0]["best"]["test"].is_null(), "{run}");
    // The weights that were chosen are those that were measured.
    let eval = ["eval", "--json", "--weights", "runs/chosen/best.safetensors", "--data", "digits"];
    assert_eq!(json(folder.path(), &eval)["top1"].as_f64(), Some(accuracy));
    let told = error(folder.path(), &["train", "--val-split", "1.5", "--out", "runs/none"]);
    assert!(told.contains("1.5") && told.contains("0.1 is a tenth"), "{told}");
}

#[test]
fn the_latest_run_is_resumed_by_default_and_a_finished_one_for_more_epochs() {
    let folder = temp();
    let told = error(folder.path(), &["train", "--resume"]);
    assert!(told.contains("no runs in runs"), "{told}");
    json(folder.path(), &["train", "--json", "--epochs", "1", "--out", "runs/first"]);
    json(folder.path(), &["train", "--json", "--epochs", "1", "--out", "runs/second", "--seed", "3"]);
    let told = error(folder.path(), &["train", "--resume"]);
    assert!(told.contains("second") && told.contains("higher number of --epochs"), "{told}");
    let run = json(folder.path(), &["train", "--json", "--resume", "--epochs", "2"]);
    assert_eq!((run["seed"].as_u64(), run["epochs"].as_array().unwrap().len()), (Some(3), 2));
    assert_eq!((run["recipe"]["epochs"].as_u64(), run["status"].as_str()), (Some(2), Some("finished")));
}

#[test]
fn runs_are_found_by_name_and_tag() {
    let folder = temp();
    let train = |name: &str, tags: &[&str]| {
        let tags: Vec<_> = tags.iter().flat_map(|tag| ["--tag", tag]).collect();
        json(folder.path(), &[&["train", "--json", "--epochs", "1", "--name", name], &tags[..]].concat())
    };
    train("plain", &["digits"]);
    let run = train("plain too", &["digits", "second"]);
    assert_eq!((run["name"].as_str(), &run["tags"]), (Some("plain too"), &serde_json::json!(["digits", "second"])));
    assert!(folder.path().join("runs/plain too/run.json").is_file(), "the run has another folder");
    let names = |filter: &[&str]| {
        let runs = json(folder.path(), &[&["runs", "--json"], filter].concat());
        let names = runs.as_array().unwrap().iter().map(|run| run["name"].as_str().unwrap().to_owned());
        names.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    assert_eq!(names(&["--tag", "digits"]), ["plain", "plain too"]);
    assert_eq!(names(&["--tag", "digits", "--tag", "second"]), ["plain too"]);
    assert_eq!(names(&["--name", "*n"]), ["plain"]);
    let text = String::from_utf8(convzoo(folder.path(), &["runs"]).stdout).unwrap();
    assert!(text.contains("digits, second"), "{text}");
    assert!(error(folder.path(), &["runs", "--tag", "third"]).contains("none of the 2 runs"));
    assert!(error(folder.path(), &["train", "--name", "../elsewhere"]).contains("begins with"));
}

#[test]
fn a_batch_size_is_found_by_trying() {
    let folder = temp();
    let train = ["train", "--json", "--epochs", "1", "--batch-size", "auto", "--device", "flex", "--out", "run"];
    let output = convzoo(folder.path(), &train);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let batch = support::parse(&output)["recipe"]["batch_size"].as_u64().unwrap();
    assert!([8, 16, 32, 64, 128].contains(&batch), "{batch} is more than a tenth of the images, or no power of two");
    for part in ["batch    8: ", "images/s", &format!("batch {batch}")] {
        assert!(told.contains(part), "no {part} in: {told}");
    }
}

#[test]
fn a_learning_rate_is_suggested_and_nothing_left_but_the_page() {
    let folder = temp();
    let output = convzoo(folder.path(), &["train", "--find-lr", "--html", "rates.html", "--batch-size", "32"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let suggested = text.split("--lr ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
    assert!(suggested.is_some_and(|rate| (1e-4..1.0).contains(&rate)), "{text}");
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["rates.html"]);
    let page = fs::read_to_string(folder.path().join("rates.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("lenet5 on digits"), "{page}");
}

#[test]
fn early_stopping_ends_a_run() {
    let folder = temp();
    let train = ["train", "--json", "--epochs", "40", "--learning-rate", "0.000001", "--schedule", "constant"];
    let patience = ["--set", "early_stopping=2", "--set", "monitor=accuracy", "--out", "run"];
    let run = json(folder.path(), &[&train[..], &patience].concat());
    let epochs = run["epochs"].as_array().unwrap().len();
    let best = run["best_epoch"].as_u64().unwrap() as usize;
    assert_eq!((run["status"].as_str(), epochs), (Some("finished"), best + 2), "40 epochs of nothing new");
}

#[test]
fn a_loss_that_is_no_number_tells_step_and_rate() {
    let folder = temp();
    let train = ["train", "--json", "--activation", "relu", "--schedule", "constant", "--learning-rate", "1e20"];
    let train = [&train[..], &["--out", "run"]].concat();
    let output = convzoo(folder.path(), &train);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("at step ") && told.contains("learning rate 1"), "{told}");
    let run: Value = serde_json::from_slice(&fs::read(folder.path().join("run/run.json")).unwrap()).unwrap();
    assert_eq!(run["status"], "failed");
}

/// A run under way in `folder/run`, begun already.
fn under_way(folder: &Path, arguments: &[&str]) -> Child {
    let endless = ["train", "--device", "flex", "--epochs", "100000", "--plain", "--out", "run"];
    let child = start(folder, &[&endless[..], arguments].concat());
    while !folder.join("run/run.json").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

/// A run of which no more than a part is done, in `folder/run`.
#[cfg(unix)]
fn interrupted(folder: &Path, arguments: &[&str]) {
    let mut child = under_way(folder, arguments);
    support::signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn runs_that_begin_at_once_take_folders_of_their_own() {
    let folder = temp();
    let seeds = ["1", "2", "3", "4", "5"];
    let train = ["train", "--json", "--device", "flex", "--epochs", "1", "--seed"];
    let runs: Vec<_> = seeds.iter().map(|seed| start(folder.path(), &[&train[..], &[seed]].concat())).collect();
    for mut run in runs {
        assert!(run.wait().unwrap().success());
    }
    let runs = json(folder.path(), &["runs", "--json"]);
    let runs: BTreeMap<_, _> =
        runs.as_array().unwrap().iter().map(|run| (run["run"].to_string(), run["seed"].to_string())).collect();
    assert_eq!(runs.len(), 5, "{runs:?}");
    assert_eq!(runs.values().cloned().collect::<BTreeSet<_>>(), seeds.map(str::to_owned).into());
}

#[test]
fn a_run_under_way_has_its_folder_alone() {
    let folder = temp();
    let mut child = under_way(folder.path(), &[]);
    for arguments in [["train", "--json", "--resume", "run"], ["train", "--json", "--out", "run"]] {
        let told = error(folder.path(), &arguments);
        assert!(told.contains("under way") || told.contains("holds a run already"), "{told}");
    }
    let told = error(folder.path(), &["train", "--resume", "run"]);
    assert!(told.contains("run holds a run that is under way"), "{told}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[cfg(unix)]
#[test]
fn what_a_kill_left_half_written_is_gone_after_resuming() {
    let folder = temp();
    let run = folder.path().join("run");
    interrupted(folder.path(), &[]);
    fs::write(run.join(".tmpA1b2C3"), "half a file").unwrap();
    fs::create_dir(run.join("checkpoints/.draftA1b2C3")).unwrap();
    let mut child = start(folder.path(), &["train", "--plain", "--resume", "run"]);
    while run.join(".tmpA1b2C3").exists() || drafts(&run.join("checkpoints")) > 0 {
        assert!(child.try_wait().unwrap().is_none(), "the run ended and left them");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What a weights file remembers of its network, the resumed run knows without the file.
#[cfg(unix)]
#[test]
fn a_run_from_weights_resumes_with_their_network() {
    let folder = temp();
    let path = folder.path();
    json(path, &["train", "--json", "--epochs", "1", "--device", "flex", "--activation", "relu", "--out", "first"]);
    let from = ["--device", "flex", "--weights", "first/best.safetensors", "--freeze", "c3", "--seed", "3"];
    json(path, &[&["train", "--json", "--epochs", "3", "--out", "whole"], &from[..]].concat());
    // It is stopped at its beginning: no test knows how fast the machine is.
    let mut child = start(path, &[&["train", "--plain", "--epochs", "3", "--out", "run"], &from[..]].concat());
    while !path.join("run/run.json").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    json(path, &["train", "--json", "--resume", "run"]);
    for file in ["last.safetensors", "best.safetensors"] {
        let read = |run: &str| fs::read(path.join(run).join(file)).unwrap();
        assert!(read("run") == read("whole"), "{file} differs from that of the undisturbed run");
    }
}

#[test]
fn numbers_beyond_all_use_are_refused_in_a_line() {
    let folder = temp();
    let recipe = folder.path().join("huge.toml");
    for text in ["epochs = 9223372036854775808", "epochs = 9223372036854775807", "batch_size = 9223372036854775807"] {
        fs::write(&recipe, text).unwrap();
        let told = error(folder.path(), &["train", "--recipe", "huge.toml", "--out", "run"]);
        assert!(told.contains(&text[..5]), "{text} told: {told}");
    }
    for set in ["mixup=1e-100", "cutmix=1e-300", "epochs=9223372036854775808"] {
        let told = error(folder.path(), &["train", "--set", set, "--out", "run"]);
        assert!(told.contains(set.split('=').next().unwrap()), "{set} told: {told}");
    }
}

#[test]
fn a_test_loss_that_is_no_number_fails_the_run() {
    let folder = temp();
    let train = ["train", "--json", "--device", "flex", "--epochs", "2", "--lr", "1e38", "--out", "run"];
    let output = convzoo(folder.path(), &train);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("at step "), "{told}");
    let run: Value = serde_json::from_slice(&fs::read(folder.path().join("run/run.json")).unwrap()).unwrap();
    assert_eq!((&run["status"], run["epochs"].as_array().unwrap().len()), (&"failed".into(), 0), "{run}");
}

#[test]
fn a_step_that_memory_cannot_hold_is_refused_before_it_starts() {
    let folder = temp();
    let told = error(folder.path(), &["train", "vgg16", "--device", "flex", "--batch-size", "100000", "--out", "run"]);
    assert!(told.contains("of memory") && told.contains("a smaller --batch needs"), "{told}");
}
