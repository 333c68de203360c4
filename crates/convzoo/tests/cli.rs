//! The command line as its users meet it.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use support::{convzoo, error, json, shared, temp};

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

#[test]
fn list_names_every_network_with_its_size() {
    let folder = temp();
    let rows = json(folder.path(), &["list", "--json", "vgg1*_bn"]);
    let names: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"]);
    let small = json(folder.path(), &["list", "--json", "--max-params", "1e5", "--family", "lenet"]);
    assert_eq!(small[0]["params"], 61706);
    assert_eq!(small[0]["macs"], 416_520);
    let best = json(folder.path(), &["list", "--json", "--max-macs", "1e9", "--min-top1", "78", "--sort", "top1"]);
    let names: Vec<_> = best.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["efficientnet_b1", "regnet_y_800mf"], "the best of at most 1 G multiply-adds");
    let mobile = &json(folder.path(), &["list", "--json", "--pretrained", "--sort", "params"])[0];
    assert_eq!((&mobile["name"], &mobile["bytes"]), (&"squeezenet1_1".into(), &(4 * 1_235_496).into()));
    // What fits a budget, and how good its published weights are.
    let fitting = json(folder.path(), &["list", "--json", "squeezenet", "--max-macs", "5e8"]);
    assert_eq!((fitting.as_array().unwrap().len(), fitting[0]["top1"].as_f64()), (1, Some(58.178)), "{fitting}");
    let text = String::from_utf8(convzoo(folder.path(), &["list"]).stdout).unwrap();
    assert!(text.contains("vgg16") && text.contains("138,357,544"), "{text}");
}

#[test]
fn one_thing_has_one_name_and_older_ones_are_still_taken() {
    let folder = temp();
    let path = folder.path();
    let help = |command: &str| String::from_utf8(convzoo(path, &[command, "--help"]).stdout).unwrap();
    for command in [
        "list",
        "summary",
        "draw",
        "train",
        "recipes",
        "runs",
        "eval",
        "predict",
        "visualize",
        "embed",
        "forward",
        "convert",
        "bench",
    ] {
        let text = help(command);
        assert!(text.contains("Example"), "{command} has no example: {text}");
        for older in ["--devices", "--batch-size", "--output", "--model", "--plain"] {
            assert!(!text.contains(older), "{command} shows {older}: {text}");
        }
    }
    assert!(help("train").contains("Network options:"));
    // What an error that comes later shows is taken.
    let taken = |arguments: &[&str], told: &str| {
        let error = error(path, arguments);
        assert!(error.contains(told), "{arguments:?} told {error}");
    };
    let none = "reading none";
    taken(&["train", "--batch-size", "0"], "batch_size must be");
    taken(&["train", "--devices", "gpu"], "wgpu[:N]");
    taken(&["predict", "--model", "lenet6", "--batch-size", "4", "--devices", "flex", "x.png"], "did you mean lenet5");
    taken(&["eval", "--model", "lenet6", "--weights", "x", "--data", "digits"], "did you mean lenet5");
    taken(&["forward", "lenet5", "--weights", "x", "--input", "none", "--output", "y"], "none");
    taken(&["bench", "lenet6", "--devices", "flex", "--batch", "1"], "did you mean lenet5");
    taken(&["runs", "none"], none.trim_start_matches("reading "));
}

#[test]
fn recipes_are_listed_and_printed_so_that_they_can_be_trained_by() {
    let folder = temp();
    let text = String::from_utf8(convzoo(folder.path(), &["recipes"]).stdout).unwrap();
    assert!(text.contains("transfer_head") && text.contains("SqueezeNet"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let names = json(folder.path(), &["recipes", "--json"]);
    assert!(names.as_array().unwrap().iter().any(|recipe| recipe["name"] == "cifar10_fast"));
    let printed = convzoo(folder.path(), &["recipes", "lenet"]).stdout;
    fs::write(folder.path().join("own.toml"), printed).unwrap();
    let run = json(folder.path(), &["train", "--recipe", "own.toml", "--epochs", "1", "--json", "--out", "own"]);
    let mut own = run["recipe"].clone();
    own["epochs"] = 20.into();
    assert_eq!(own, json(folder.path(), &["recipes", "lenet", "--json"]));
}

#[test]
fn shells_complete_names_and_manuals_are_written() {
    let folder = temp();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = convzoo(folder.path(), &["completions", shell]);
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && script.contains("convzoo"), "{shell}: {script}");
        if ["bash", "zsh", "fish"].contains(&shell) {
            // Fish is told of options alone.
            let positional = if shell == "fish" { &[][..] } else { &["squeezenet1_0"] };
            for name in ["transfer_head", "cifar100", "gradcam"].iter().chain(positional) {
                assert!(script.contains(name), "{shell} does not complete {name}");
            }
        }
    }
    assert!(convzoo(folder.path(), &["man", "man"]).status.success());
    let pages = entries(&folder.path().join("man"));
    assert!(pages.iter().any(|page| page.ends_with("convzoo-train.1")), "{pages:?}");
}

#[test]
fn tables_leave_out_columns_where_the_terminal_has_no_room() {
    let folder = temp();
    let shown = |arguments: &[&str], columns: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_convzoo"));
        command.args(arguments).current_dir(folder.path()).env_remove("COLUMNS");
        columns.into_iter().for_each(|columns| _ = command.env("COLUMNS", columns));
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let widest = |text: &str| text.lines().map(|line| line.chars().count()).max().unwrap();
    for arguments in [&["list"][..], &["summary", "densenet201"], &["summary", "inception_v3"], &["summary", "vgg16"]] {
        let (all, some) = (shown(arguments, None), shown(arguments, Some("100")));
        assert!(widest(&all) > 100 && !all.contains("left out"), "{arguments:?}: {all}");
        assert!(widest(&some) <= 100 && some.contains("left out"), "{arguments:?}: {} columns", widest(&some));
    }
    assert_eq!(shown(&["summary", "lenet5"], Some("100")), shown(&["summary", "lenet5"], None));
}

#[test]
fn summary_shows_lenets_table() {
    let folder = temp();
    let summary = json(folder.path(), &["summary", "lenet5", "--input", "3x32x32", "--json"]);
    assert_eq!(summary["model"], "lenet5");
    assert_eq!(summary["params"], 62_006);
    assert_eq!(summary["input"], serde_json::json!([3, 32, 32]));
    let params = summary["layers"].as_array().unwrap().iter().map(|layer| layer["params"].as_u64().unwrap());
    let params: Vec<_> = params.filter(|&params| params > 0).collect();
    assert_eq!(params, [456, 2_416, 48_120, 10_164, 850]);
    assert_eq!(summary["layers"][0]["output"], serde_json::json!([6, 28, 28]));
    assert_eq!(summary["layers"][3]["receptive_field"], serde_json::json!([16, 16]));
    assert_eq!(json(folder.path(), &["summary", "vgg16", "--json"])["params"], 138_357_544);
}

/// The lines of a CSV document, the names of its columns first; no cell of these tests is quoted.
fn csv(folder: &Path, arguments: &[&str]) -> Vec<Vec<String>> {
    let output = convzoo(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Vec<_>> = text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect();
    assert!(
        lines.iter().all(|line| line.len() == lines[0].len()),
        "{arguments:?} has lines of several lengths: {text}"
    );
    lines
}

#[test]
fn csv_has_the_rows_of_the_json() {
    let folder = temp();
    let path = folder.path();
    let (lines, rows) = (csv(path, &["list", "--csv", "vgg1*_bn"]), json(path, &["list", "--json", "vgg1*_bn"]));
    assert_eq!(lines[0][..6], ["name", "family", "year", "params", "macs", "input"]);
    assert_eq!(lines.len(), 5, "{lines:?}");
    for (line, row) in lines[1..].iter().zip(rows.as_array().unwrap()) {
        let expected = [row["name"].as_str().unwrap(), &row["params"].to_string(), "3x224x224"];
        assert_eq!([&line[0], &line[3], &line[5]], expected);
    }
    assert_eq!(csv(path, &["list", "--csv", "none like this"]).len(), 1, "only the names of the columns");

    image::GrayImage::from_fn(8, 8, |x, _| image::Luma([if x == 4 { 255 } else { 0 }]))
        .save(path.join("1.png"))
        .unwrap();
    let lines = csv(path, &["predict", "1.png", "--top", "2", "--csv"]);
    let top = &json(path, &["predict", "1.png", "--top", "2", "--json"])[0]["top"];
    assert_eq!(lines[0], ["image", "rank", "class", "label", "probability", "error"]);
    for (place, line) in lines[1..].iter().enumerate() {
        assert_eq!(line[..3], ["1.png", &(place + 1).to_string(), &top[place]["class"].to_string()]);
        let [written, expected] = [line[4].parse::<f64>().unwrap(), top[place]["probability"].as_f64().unwrap()];
        assert!((written - expected).abs() < 1e-6, "{written} is written for {expected}");
    }
    let output = convzoo(path, &["predict", "none.png", "1.png", "--csv"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "an image cannot be read");
    assert!(text.contains("none.png,,,,,") && text.contains("No such file"), "{text}");
}

#[test]
fn classes_below_a_threshold_are_left_out() {
    let folder = temp();
    let path = folder.path();
    image::GrayImage::from_fn(8, 8, |x, _| image::Luma([if x == 4 { 255 } else { 0 }]))
        .save(path.join("1.png"))
        .unwrap();
    let with = |threshold: &str| {
        let rows = json(path, &["predict", "1.png", "--top", "10", "--threshold", threshold, "--json"]);
        let top = rows[0]["top"].as_array().unwrap().iter().map(|class| class["probability"].as_f64().unwrap());
        top.collect::<Vec<_>>()
    };
    let all = with("0");
    assert_eq!(all.len(), 10);
    let kept: Vec<_> = all.iter().copied().filter(|probability| *probability >= f64::from(0.01_f32)).collect();
    assert_eq!(with("0.01"), kept, "of {all:?}");
    assert!(with("1").is_empty(), "of {all:?}");
    assert_eq!(csv(path, &["predict", "1.png", "--threshold", "1", "--csv"])[1], ["1.png", "", "", "", "", ""]);
    for threshold in ["1.5", "-0.1", "nan", "half"] {
        let told = error(path, &["predict", "1.png", &format!("--threshold={threshold}")]);
        assert!(told.contains("from 0 to 1"), "{threshold}: {told}");
    }
}

#[test]
fn an_ensemble_averages_the_probabilities_of_its_networks() {
    let folder = temp();
    let path = folder.path();
    for seed in ["1", "2"] {
        json(path, &["train", "--json", "--epochs", "1", "--seed", seed, "--out", seed]);
    }
    let (first, second) = ("1/best.safetensors", "2/best.safetensors");
    let eval =
        |ensemble: &[&str]| json(path, &[&["eval", "--data", "digits", "--json", "--ensemble"], ensemble].concat());
    let loss = |measured: &Value| measured["loss"].as_f64().unwrap();
    let alone = json(path, &["eval", "--data", "digits", "--json", "--weights", first]);
    let twice = eval(&[first, "lenet5=1/best.safetensors"]);
    assert_eq!(twice["correct"], alone["correct"], "a network with itself is itself");
    assert!((loss(&twice) - loss(&alone)).abs() < 1e-6, "{} and {}", loss(&twice), loss(&alone));
    let both = eval(&[first, second]);
    let members = both["ensemble"].as_array().unwrap();
    assert_eq!((&members[0]["loss"], &members[1]["weights"]), (&alone["loss"], &Value::from(second)));
    // The logarithm is concave: that of a mean of probabilities is at least the mean of theirs.
    let mean = members.iter().map(loss).sum::<f64>() / 2.0;
    assert!(loss(&both) < mean - 1e-3, "together {}, on average {mean}", loss(&both));
    let lines = csv(path, &["eval", "--data", "digits", "--csv", "--ensemble", first, second]);
    assert_eq!((lines[1][0].as_str(), &lines[1][4]), ("lenet5", &both["correct"].to_string()));
    let pairs = csv(path, &["eval", "--data", "digits", "--csv", "--confusion", "--ensemble", first, second]);
    let images: usize = pairs[1..].iter().map(|pair| pair[2].parse::<usize>().unwrap()).sum();
    assert_eq!(images, 360, "{pairs:?}");

    let wrong = |ensemble: &[&str]| error(path, &[&["eval", "--data", "digits", "--ensemble"], ensemble].concat());
    assert!(wrong(&["lenet6=1/best.safetensors"]).contains("did you mean lenet5"));
    assert!(wrong(&[first, "none.pth"]).contains("there is no file none.pth"));
    assert!(wrong(&[first, "--weights", second]).contains("cannot be used with"));
}

#[test]
fn every_network_is_drawn_with_all_its_layers() {
    let folder = temp();
    let path = folder.path();
    for model in ["resnet18", "googlenet", "densenet121", "inception_resnet_v2", "mobilenet_v3_small", "fractalnet20"] {
        assert!(convzoo(path, &["draw", model]).status.success(), "{model}");
        let page = fs::read_to_string(path.join(format!("{model}.html"))).unwrap();
        let layers = json(path, &["summary", model, "--json"])["layers"].clone();
        for layer in layers.as_array().unwrap() {
            let name = layer["name"].as_str().unwrap();
            assert!(page.contains(&format!("<code>{name}</code>")), "{model} is drawn without {name}");
        }
    }
    assert!(convzoo(path, &["draw", "googlenet", "--block", "inception3a", "-o", "a.svg"]).status.success());
    let block = fs::read_to_string(path.join("a.svg")).unwrap();
    assert!(block.contains("64 + 128 + 32 + 32 channels") && block.contains("256×28×28"), "{block}");
    let dot = json(path, &["draw", "resnet18", "-o", "a.dot", "--json", "--input", "3x64x64"]);
    assert_eq!((&dot["out"], &dot["input"]), (&"a.dot".into(), &serde_json::json!([3, 64, 64])));
    assert!(convzoo(path, &["draw", "lenet5", "-o", "a.dot"]).status.success(), "a drawing is replaced by another");
    for _ in 0..2 {
        assert!(convzoo(path, &["draw", "lenet5", "-o", "a.json"]).status.success(), "a description replaces another");
    }
    let described: Value = serde_json::from_str(&fs::read_to_string(path.join("a.json")).unwrap()).unwrap();
    assert_eq!(described["preprocessing"]["size"], serde_json::json!([32, 32]));
    assert_eq!(described["graph"]["nodes"][1]["parameters"][0]["name"], "c1.weight");
    assert!(described["pictures"][0]["svg"].as_str().unwrap().contains("#n1"), "boxes are links");

    const WEIGHTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/lenet5-digits.safetensors");
    assert!(convzoo(path, &["draw", "--weights", WEIGHTS, "-o", "own.html"]).status.success());
    let page = fs::read_to_string(path.join("own.html")).unwrap();
    assert_eq!(page.matches("class=\"histogram\"").count(), 10, "weight and bias of five layers");
    fs::write(path.join("mine.svg"), "a drawing of mine").unwrap();
    fs::write(path.join("junk.pth"), "no weights").unwrap();
    for (arguments, part) in [
        (&["resnet18", "-o", "a.pdf"][..], "must end in .svg or .html or .dot or .json"),
        (&["resnet18", "-o", "none/a.svg"], "there is no folder none"),
        (&["resnet18", "-o", "mine.svg"], "is no drawing that convzoo wrote"),
        (&["resnet19"], "did you mean"),
        (&["resnet18", "--block", "layer5", "-o", "b.svg"], "did you mean layer"),
        (&["resnet18", "--block", "layer1.0"], "must end in .svg"),
        (&["resnet18", "--weights", WEIGHTS, "-o", "b.html"], "missing (102)"),
        (&["resnet18", "--weights", "junk.pth", "-o", "b.html"], "is no PyTorch checkpoint"),
        (&["lenet5", "--weights", WEIGHTS, "-o", "b.svg"], "must end in .html"),
        (&["lenet5", "--input", "1x28x28", "-o", "b.svg"], "exactly 32×32"),
    ] {
        let told = error(path, &[&["draw"], arguments].concat());
        assert!(told.contains(part), "{arguments:?} told: {told}");
    }
}

#[test]
fn shape_computes_convolution_arithmetic() {
    let folder = temp();
    let shape = json(folder.path(), &["shape", "224", "--kernel", "7", "--stride", "2", "--padding", "same", "--json"]);
    assert_eq!((&shape["output"], &shape["padding"]), (&Value::from(112), &serde_json::json!([2, 3])));
    assert_eq!(shape["keeping"], 3);
    assert!(error(folder.path(), &["shape", "5", "--kernel", "0"]).contains("0"));
    assert!(error(folder.path(), &["shape", "5", "--kernel", "3", "--padding", "some"]).contains("valid, same"));
}

#[test]
fn devices_lists_what_is_compiled_in() {
    let folder = temp();
    let devices = json(folder.path(), &["devices", "--json"]);
    let flex = devices.as_array().unwrap().iter().find(|device| device["name"] == "flex").unwrap();
    assert_eq!((flex["compiled"].as_bool(), flex["present"].as_bool()), (Some(true), Some(true)));
}

#[test]
fn training_on_the_embedded_digits_reaches_97_percent_and_eval_agrees() {
    let folder = temp();
    let run = json(folder.path(), &["train", "--json", "--device", "flex"]);
    let epochs = run["epochs"].as_array().unwrap();
    let best = run["best_epoch"].as_u64().unwrap() as usize;
    let accuracy = epochs[best - 1]["test"]["accuracy"].as_f64().unwrap();
    assert_eq!((epochs.len(), &run["status"]), (20, &Value::from("finished")));
    assert!(accuracy >= 0.97, "best test accuracy {accuracy}");

    let weights = "runs/lenet5-digits/best.safetensors";
    let devices: &[&str] = if cfg!(feature = "ndarray") { &["flex", "ndarray"] } else { &["flex"] };
    for device in devices {
        let eval = ["eval", "lenet5", "--weights", weights, "--data", "digits", "--json", "--device", device];
        let eval = json(folder.path(), &eval);
        assert_eq!(eval["images"], 360);
        let top1 = eval["top1"].as_f64().unwrap();
        assert!((top1 - accuracy).abs() < 1e-6, "{device}: eval says {top1}, training {accuracy}");
        let loss = eval["loss"].as_f64().unwrap();
        let trained = epochs[best - 1]["test"]["loss"].as_f64().unwrap();
        assert!((loss - trained).abs() < 1e-4, "{device}: eval says loss {loss}, training {trained}");
    }
    let eval_in = |precision, device| {
        let eval = ["eval", "lenet5", "--weights", weights, "--data", "digits", "--json", "--device", device];
        [&eval[..], &["--precision", precision]].concat()
    };
    let trained = epochs[best - 1]["test"]["loss"].as_f64().unwrap();
    for (precision, differences) in [("linear-f16", 1e-9..1e-3), ("bf16", 1e-6..1e-2)] {
        let eval = json(folder.path(), &eval_in(precision, "flex"));
        let (loss, top1) = (eval["loss"].as_f64().unwrap(), eval["top1"].as_f64().unwrap());
        assert!(differences.contains(&(loss - trained).abs()), "{precision}: loss {loss}, training {trained}");
        assert!((top1 - accuracy).abs() < 2.0 / 360.0, "{precision}: top-1 {top1}, training {accuracy}");
    }
    if cfg!(feature = "ndarray") {
        let told = error(folder.path(), &eval_in("bf16", "ndarray"));
        assert!(told.contains("the precision bf16 needs the device flex with convzoo's kernels on"), "{told}");
    }
    let mut left: Vec<_> = entries(&folder.path().join("runs/lenet5-digits")).into_iter().collect();
    left.retain(|path| path.is_file());
    let name = |path: &std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    // The name of TensorBoard's file says when the run began.
    let left: Vec<_> = left.iter().map(name).filter(|name| !name.starts_with("events.out.tfevents.")).collect();
    let expected = [
        "accuracy.svg",
        "best.safetensors",
        "confusion.svg",
        "data.json",
        "last.safetensors",
        "learning-rate.svg",
        "loss.svg",
        "metrics.csv",
        "metrics.jsonl",
        "report.html",
        "run.json",
        "run.lock",
    ];
    assert_eq!(left, expected);
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_the_last_epoch() {
    let folder = temp();
    let mut child = Command::new(env!("CARGO_BIN_EXE_convzoo"))
        .args(["train", "--json", "--epochs", "500", "--out", "run"])
        .current_dir(folder.path())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    lines.by_ref().map_while(Result::ok).find(|line| line.starts_with("epoch   2/500")).unwrap();
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    lines.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let run: Value = serde_json::from_slice(&fs::read(folder.path().join("run/run.json")).unwrap()).unwrap();
    assert_eq!(run["status"], "interrupted");
    assert!(folder.path().join("run/last.safetensors").is_file());
}

/// The limit does not bind root, so that root becomes a user who has no other process.
#[cfg(target_os = "linux")]
#[test]
fn where_no_thread_can_be_made_each_command_says_so_in_one_line() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 54_321;
    let folder = temp();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    image::RgbImage::new(40, 40).save(folder.path().join("image.png")).unwrap();
    let is_root = fs::metadata(folder.path()).unwrap().uid() == 0;
    let run = |threads: usize, arguments: &[&str]| {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nproc={threads}")).arg(env!("CARGO_BIN_EXE_convzoo")).args(arguments);
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.current_dir(folder.path()).env("HOME", folder.path()).output()
    };
    if !run(1, &["--version"]).is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no prlimit, or the program cannot be run by another user");
        return;
    }
    const WEIGHTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/lenet5-digits.safetensors");
    fs::copy(WEIGHTS, folder.path().join("w.safetensors")).unwrap();
    let commands: [&[&str]; 8] = [
        &["train", "--plain", "--epochs", "1", "--device", "flex"],
        &["eval", "lenet5", "--data", "digits", "--weights", "w.safetensors", "--device", "flex"],
        &["predict", "image.png", "--device", "flex"],
        &["embed", "lenet5", "image.png", "--weights", "w.safetensors", "--out", "f.npy", "--device", "flex"],
        &["visualize", "lenet5", "image.png", "--weights", "w.safetensors", "--what", "gradcam", "--device", "flex"],
        &["convert", "lenet5", "w.safetensors", "out.bpk"],
        &["bench", "lenet5", "--devices", "flex", "--batch", "1", "--seconds", "0.1"],
        &["list", "lenet5"],
    ];
    let mut refused = 0;
    for arguments in commands {
        // From none at all to as many as two cores need.
        for threads in 1..=8 {
            let output = run(threads, arguments).unwrap();
            // `bench` tells it in its table.
            let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert!(!told.contains("panicked"), "{arguments:?} with {threads} threads panicked: {told}");
            if !output.status.success() {
                let reasons = told.lines().filter(|line| line.contains("Resource temporarily unavailable")).count();
                assert_eq!(reasons, 1, "{arguments:?} with {threads} threads: {told}");
                refused += 1;
            }
        }
    }
    assert!(refused >= 7, "the limit bound no command but {refused}");
}

#[test]
fn mistakes_give_one_error_and_leave_nothing() {
    let folder = temp();
    let path = folder.path();
    fs::write(path.join("file"), "no folder").unwrap();
    fs::write(path.join("recipe.toml"), "epoch = 3").unwrap();
    fs::write(path.join("junk.pth"), "no weights").unwrap();
    fs::create_dir(path.join("empty")).unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["train", "lenet6"], "did you mean lenet5"),
        (&["train", "--data", "digit"], "digits"),
        (&["train", "--device", "gpu"], "wgpu[:N]"),
        (&["train", "--epochs", "0"], "epochs must be from 1 to 1000000"),
        (&["train", "--batch-size", "0"], "batch_size must be from 1 to 1000000"),
        (&["train", "--learning-rate", "-1"], "learning_rate must be"),
        (&["train", "--out", "file/run"], "file/run"),
        (&["train", "--recipe", "recipe.toml"], "did you mean `epochs`?"),
        (&["train", "--recipe", "resnet_cifr"], "did you mean resnet_cifar?"),
        (&["train", "--set", "epoch=3"], "did you mean `epochs`?"),
        (&["train", "--set", "epochs"], "KEY=VALUE"),
        (&["train", "--set", "augment.random_crop=-1"], "random_crop"),
        (&["train", "--optimizer", "adm"], "did you mean `adam`?"),
        (&["train", "--optimizer", "adam", "--momentum", "0.5"], "unknown field `momentum`"),
        (&["train", "--set", "precision=bf15"], "did you mean `bf16`?"),
        (&["train", "--precision", "bf16", "--set", "quantization.weight_bits=8"], "precision must be f32"),
        (&["train", "--keep", "0"], "keep must be at least 1"),
        (&["train", "--checkpoint-every", "0"], "checkpoint_every must be at least 1"),
        (&["runs", "nowhere"], "nowhere"),
        (&["runs", "empty"], "there are no runs in empty"),
        (&["runs", "--compare", "empty", "none"], "reading the run empty"),
        (&["train", "--recipe", "none.toml"], "none.toml"),
        (&["train", "--resume", "empty"], "run.json"),
        (&["train", "--resume", "empty", "--epochs", "3"], "run.json"),
        (&["train", "--resume", "empty", "--batch", "8"], "cannot be used with"),
        (&["train", "--data", "mnist", "--data-dir", "nowhere"], "nowhere"),
        (&["train", "--data", "mnist", "--data-dir", "empty"], "t10k-images-idx3-ubyte"),
        (&["train", "vgg11", "--activation", "relu"], "has no option 'activation'"),
        (&["train", "alexnet", "--dropout", "1.5"], "dropout must be"),
        (
            &["eval", "lenet5", "--weights", "none.pth", "--data", "digits"],
            "none.pth: No such file or directory (os error 2)\n",
        ),
        (&["eval", "resnet50", "--weights", "imagenet1k_v3", "--data", "digits"], "imagenet1k_v1, imagenet1k_v2"),
        (&["eval", "lenet5", "--weights", "junk.pth", "--data", "digits"], "is no PyTorch checkpoint"),
        (&["eval", "lenet5", "--weights", "empty", "--data", "digits"], "empty"),
        (&["summary", "lenet5", "--input", "1x28x28"], "exactly 32×32"),
        (&["summary", "vgg11", "--input", "3x31x31"], "at least 32×32"),
        (&["summary", "vgg11", "--classes", "0"], "at least one class"),
        (&["summary", "vgg11", "--input", "0x32x32"], "at least one input channel"),
        (&["summary", "vgg11", "--input", "3x32"], "CHANNELSxHEIGHTxWIDTH"),
        (&["summary", "vgg11", "--input", "224x224x3"], "3x224x224 was meant?"),
        (&["train", "--dashboard"], "standard output is none"),
        (&["train", "--weights", "none"], "there is no file none, and no weights of this name are published"),
        (&["bench", "resnot*"], "no network's name is like resnot*"),
        (&["recipes", "resnet_cifr"], "did you mean resnet_cifar?"),
        (&["predict", "lenet5"], "name images"),
        (&["convert", "lenet5", "none.pth", "own.safetensors", "--model", "lenet5"], "[MODEL] IN OUT"),
        (&["summary", "vgg11", "--classes", "4294967295"], "at most 1048576 classes, not 4294967295"),
        (&["summary", "vgg11", "--input", "1000000x32x32"], "at most 4096 channels"),
        (&["summary", "vgg11", "--input", "4096x16384x16384"], "805306368 values in all"),
        (&["summary", "vgg11", "--batch", "4294967295"], "65536"),
        (&["predict", "none.png", "--activation", "relu"], "options of the network need --weights"),
        (&["predict", "none.png", "--labels", "/dev/zero"], "/dev/zero is malformed: it is not a regular file"),
        (&["runs", "--compare", "a", "b", "--html", "file"], "file must end in .html or .htm"),
        (&["bench", "lenet5", "--html", "file"], "file must end in .html or .htm"),
        (&["list", "--family", "vgh"], "there is no family"),
        (&["list", "--json", "--csv"], "cannot be used with"),
        (&["bench", "lenet5", "--profile", "--csv"], "cannot be used with"),
        (&["eval", "lenet5", "--data", "digits"], "--weights"),
    ];
    for (arguments, part) in cases {
        let told = error(path, arguments);
        assert!(told.contains(part), "{arguments:?} told: {told}");
    }
}

#[test]
fn weights_of_another_network_are_told_apart() {
    let folder = temp();
    json(folder.path(), &["train", "--json", "--epochs", "1", "--out", "run"]);
    let weights = "run/best.safetensors";
    let told = error(folder.path(), &["eval", "vgg11", "--weights", weights, "--data", "digits"]);
    assert!(told.contains("missing (22)") && told.contains("unexpected (10)"), "{told}");
    let occupied = error(folder.path(), &["train", "--out", "run"]);
    assert!(occupied.contains("holds a run already"), "{occupied}");
    // Cut short at any point, the file is an error and not a network.
    let whole = fs::read(folder.path().join(weights)).unwrap();
    for length in [0, 4, 9, 400, whole.len() / 2, whole.len() - 1] {
        fs::write(folder.path().join("cut.safetensors"), &whole[..length]).unwrap();
        error(folder.path(), &["eval", "lenet5", "--weights", "cut.safetensors", "--data", "digits"]);
    }
}

#[test]
fn damaged_idx_files_are_errors() {
    let Some(mnist) = shared("data/mnist-t10k") else { return };
    let folder = temp();
    let damaged = folder.path().join("damaged");
    fs::create_dir(&damaged).unwrap();
    let (images, labels) = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz");
    for file in [images, labels] {
        fs::copy(mnist.join(file), damaged.join(file)).unwrap();
    }
    let train = ["train", "--data", "mnist", "--data-dir", "damaged", "--epochs", "1"];
    let whole = fs::read(mnist.join(images)).unwrap();
    fs::write(damaged.join(images), &whole[..whole.len() / 2]).unwrap();
    assert!(error(folder.path(), &train).contains(images));
    fs::write(damaged.join(images), &whole).unwrap();
    // The labels of another count: an IDX file of three.
    fs::remove_file(damaged.join(labels)).unwrap();
    fs::write(damaged.join("t10k-labels-idx1-ubyte"), [0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3]).unwrap();
    let told = error(folder.path(), &train);
    assert!(told.contains("10000") && told.contains('3'), "{told}");
}
