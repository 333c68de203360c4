//! From one data set to another, with damaged images on the way, on one device and on two.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::{convzoo, error, json, parse, temp};

/// An 8 × 8 image of one colour per quarter, in the simplest of formats.
fn bmp(path: &Path, seed: u8) {
    let mut file = b"BM\xf6\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x08\0\0\0\x08\0\0\0\x01\0\x18\0".to_vec();
    file.resize(54, 0);
    let quarter = |at: u8| seed.wrapping_mul(53).wrapping_add((at / 32) * 120 + (at % 8 / 4) * 60);
    file.extend((0..64).flat_map(|at| [quarter(at), 255 - quarter(at), 40]));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, file).unwrap();
}

/// Two classes of ten images, in `photos`.
fn photos(folder: &Path) {
    for (class, from) in [("a", 0), ("b", 10)] {
        (0..10).for_each(|i| bmp(&folder.join(format!("photos/{class}/{i}.bmp")), from + i));
    }
}

#[test]
fn weights_for_other_classes_get_a_new_head_and_keep_what_is_frozen() {
    let folder = temp();
    photos(folder.path());
    json(folder.path(), &["train", "--json", "--epochs", "1", "--device", "flex", "--out", "digits"]);
    let data = ["--data", "folder", "--data-dir", "photos", "--device", "flex", "--json"];
    let train = ["train", "lenet5", "--weights", "digits/best.safetensors", "--freeze", "c5", "--epochs", "2"];
    let run = json(folder.path(), &[&train[..], &data, &["--out", "photos-run"]].concat());
    assert_eq!((&run["recipe"]["transfer"]["freeze"], run["train_images"].as_u64()), (&"c5".into(), Some(16)));

    let eval = ["eval", "lenet5", "--weights", "photos-run/last.safetensors"];
    let plain = json(folder.path(), &[&eval[..], &data].concat());
    assert_eq!((plain["images"].as_u64(), plain["classes"].as_array().map(Vec::len)), (Some(4), Some(2)));
    let crops = json(folder.path(), &[&eval[..], &data, &["--ten-crop"]].concat());
    assert_ne!(crops["loss"], plain["loss"], "ten crops, five of them mirrored, have the loss of one view");

    let told = error(folder.path(), &[&train[..4], &["--freeze", "c55"], &data[..4], &["--out", "new"]].concat());
    assert!(told.contains("did you mean c5"), "{told}");
}

/// Text on standard output and standard error of a command that succeeds.
fn told(folder: &Path, arguments: &[&str]) -> [String; 2] {
    let output = convzoo(folder, arguments);
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{arguments:?}: {err}");
    [out, err]
}

#[test]
fn eval_says_which_images_it_measures_and_finds_their_classes_by_name() {
    let folder = temp();
    photos(folder.path());
    let train = ["train", "lenet5", "--data", "folder", "--data-dir", "photos", "--epochs", "1", "--out", "run"];
    let [lines, _] = told(folder.path(), &train);
    assert!(
        lines.contains("16 images to train on, 4 to test on, 1 epoch,") && lines.contains("epoch   1/1"),
        "{lines}"
    );
    // The network's name is the weights' to know, whether it is given or not.
    let weights = ["eval", "--weights", "run/last.safetensors", "--data", "folder", "--data-dir"];
    let eval = |data: &str, more: &[&str]| told(folder.path(), &[&weights[..], &[data], more].concat());
    let [line, note] = eval("photos", &[]);
    assert!(line.contains("the fifth held out for testing by seed 0: ") && line.contains(" of 4 right"), "{line}");
    assert!(note.contains("--split all measures all 20"), "{note}");
    let [line, note] = eval("photos", &["--split", "all"]);
    assert!(line.contains("all images: ") && line.contains(" of 20 right") && note.is_empty(), "{line} {note}");

    // Images to test on alone, of one of the classes: those of b are still those of b.
    bmp(&folder.path().join("alone/test/b/1.bmp"), 3);
    let alone = json(folder.path(), &[&weights[..], &["alone", "--json"]].concat());
    let accuracies: Vec<_> = alone["classes"].as_array().unwrap().iter().map(|class| &class["accuracy"]).collect();
    assert_eq!((alone["images"].as_u64(), accuracies[0].is_null()), (Some(1), true), "{alone}");
    assert_eq!(alone["confusion"][0], serde_json::json!([0, 0]), "an image of b counts as one of a");
    assert!(
        error(folder.path(), &[&weights[..], &["alone", "--split", "val"]].concat()).contains("no validation images")
    );

    // Other classes are an error that shows both lists, also where there are as many.
    fs::rename(folder.path().join("photos/b"), folder.path().join("photos/c")).unwrap();
    let told = error(folder.path(), &[&weights[..], &["photos"]].concat());
    assert!(told.contains("'folder' has 2: a, c") && told.contains("the weights know 2: a, b"), "{told}");
    let digits = ["train", "lenet5", "--json", "--epochs", "1", "--out", "digits"];
    json(folder.path(), &digits);
    let told = error(folder.path(), &["eval", "--weights", "digits/last.safetensors", "--data", "photos"]);
    assert!(told.contains("--data folder --data-dir photos"), "{told}");
}

#[test]
fn weights_bring_a_recipe_for_transfer_and_a_frozen_random_backbone_is_refused() {
    let folder = temp();
    photos(folder.path());
    let path = folder.path();
    json(path, &["train", "--json", "--epochs", "1", "--out", "digits"]);
    let data = ["--data", "folder", "--data-dir", "photos", "--epochs", "2", "--json", "--out"];
    let train = |weights: &str, out| json(path, &[&["train", "--weights", weights][..], &data, &[out]].concat());
    let head = train("digits/best.safetensors", "head");
    assert_eq!((&head["recipe_name"], &head["setup"]["model"]), (&"transfer_head".into(), &"lenet5".into()));
    // The pass of the backbone is a part of the time, which the list of runs tells.
    let backbone = head["backbone_seconds"].as_f64().unwrap();
    let epochs: f64 = head["epochs"].as_array().unwrap().iter().map(|epoch| epoch["seconds"].as_f64().unwrap()).sum();
    let runs = json(path, &["runs", ".", "--json"]);
    let listed = runs.as_array().unwrap().iter().find(|run| run["run"] == "./head").unwrap();
    let seconds = listed["seconds"].as_f64().unwrap();
    assert!(backbone > 0.0 && (seconds - backbone - epochs).abs() < 1e-9, "{seconds} of {backbone} and {epochs}");
    let report = fs::read_to_string(path.join("head/report.html")).unwrap();
    assert!(report.contains("the frozen backbone") && report.contains("chosen by how it does on these same images"));

    let whole = train("head/best.safetensors", "whole");
    assert_eq!(whole["recipe_name"], "transfer", "the head knows these classes already");
    let told = error(path, &["train", "lenet5", "--recipe", "transfer_head"]);
    assert!(told.contains("without --weights they are random"), "{told}");
}

#[test]
fn damaged_images_stop_a_run_or_are_left_out_and_named() {
    let folder = temp();
    photos(folder.path());
    for class in ["a", "b"] {
        fs::write(folder.path().join(format!("photos/{class}/damaged.png")), "no image").unwrap();
    }
    // Behind the first image of all, which is looked at before the run starts.
    fs::rename(folder.path().join("photos/a/damaged.png"), folder.path().join("photos/a/z.png")).unwrap();
    let train = ["train", "lenet5", "--data", "folder", "--data-dir", "photos", "--epochs", "1", "--device", "flex"];
    let output = convzoo(folder.path(), &[&train[..], &["--out", "stopped"]].concat());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && !told.contains("panicked"), "{told}");
    assert!(told.contains(".png") && told.contains("--skip-corrupt"), "{told}");

    let output = convzoo(folder.path(), &[&train[..], &["--skip-corrupt", "--json", "--out", "run"]].concat());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("a/z.png") && told.contains("b/damaged.png"), "{told}");
    let run = parse(&output);
    let images = run["train_images"].as_u64().unwrap() + run["test_images"].as_u64().unwrap();
    assert_eq!(images, 20, "{told}");
}

#[test]
fn two_devices_are_named_with_a_comma_and_remembered() {
    let folder = temp();
    let train = ["train", "--json", "--epochs", "1", "--device", "flex,flex", "--workers", "1", "--out", "run"];
    let run = json(folder.path(), &train);
    assert_eq!(run["device"], "flex,flex");
    let told = error(folder.path(), &["train", "--device", "flex,gpu"]);
    assert!(told.contains("gpu"), "{told}");
}

#[cfg(not(feature = "remote"))]
#[test]
fn serving_says_what_a_build_needs_for_it() {
    let folder = temp();
    let told = error(folder.path(), &["serve", "--device", "flex", "--listen", "127.0.0.1:0"]);
    assert!(told.contains("--features remote"), "{told}");
    assert!(error(folder.path(), &["serve", "--listen", "nowhere"]).contains("--listen"));
}

/// A run on `photos`, stopped at its beginning.
fn stopped(folder: &Path) {
    let train = ["train", "lenet5", "--data", "folder", "--data-dir", "photos", "--epochs", "2000", "--device", "flex"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_convzoo"));
    command.args(train).args(["--plain", "--out", "run"]).current_dir(folder).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    while !folder.join("run/run.json").exists() {
        assert!(child.try_wait().unwrap().is_none(), "the run did not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn images_that_changed_are_told_when_a_run_is_resumed() {
    let folder = temp();
    photos(folder.path());
    stopped(folder.path());
    let at = |name: &str| folder.path().join("photos").join(name);
    let told = || error(folder.path(), &["train", "--plain", "--resume", "run"]);

    bmp(&at("a/new.bmp"), 77);
    assert!(told().contains("1 image was added: a/new.bmp"), "{}", told());
    fs::remove_file(at("a/new.bmp")).unwrap();
    fs::rename(at("b/3.bmp"), folder.path().join("3.bmp")).unwrap();
    assert!(told().contains("1 image was removed: b/3.bmp"), "{}", told());
    fs::rename(folder.path().join("3.bmp"), at("b/3.bmp")).unwrap();
    fs::rename(at("b"), at("c")).unwrap();
    assert!(told().contains("the class 'b' is called 'c'"), "{}", told());
    fs::rename(at("c"), at("b")).unwrap();
    bmp(&at("d/1.bmp"), 78);
    assert!(told().contains("the class 'd' was added"), "{}", told());
    // A run of an earlier version has written down how many images there were.
    fs::remove_file(folder.path().join("run/data.json")).unwrap();
    assert!(told().contains("images to train on"), "{}", told());
    fs::remove_dir_all(at("d")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_convzoo"));
    command.args(["train", "--plain", "--resume", "run"]).current_dir(folder.path()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert!(child.try_wait().unwrap().is_none(), "the run was not resumed with all as it was");
    child.kill().unwrap();
    child.wait().unwrap();
}
