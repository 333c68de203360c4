//! `convzoo bench` as its users meet it.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod support;

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::{convzoo, error, json, parse, temp};

/// A bench of few readings.
fn bench(folder: &Path, arguments: &[&str]) -> Vec<Value> {
    let quick = ["bench", "--seconds", "0.02", "--json"];
    json(folder, &[&quick, arguments].concat()).as_array().unwrap().clone()
}

/// What is compiled in and needs no more than a CPU.
const DEVICES: &[&str] = if cfg!(feature = "ndarray") { &["flex", "ndarray"] } else { &["flex"] };

fn number(row: &Value, field: &str) -> f64 {
    row[field].as_f64().unwrap_or_else(|| panic!("no {field} in {row}"))
}

#[test]
fn every_combination_is_a_row_with_all_figures() {
    let folder = temp();
    let devices = DEVICES.join(",");
    let arguments = ["lenet5", "resnet20_cifar", "--devices", &devices, "--batch", "1,2", "--mode", "infer,train"];
    let rows = bench(folder.path(), &arguments);
    assert_eq!(rows.len(), 2 * 2 * 2 * DEVICES.len());
    for row in &rows {
        for field in ["median_ms", "min_ms", "images_per_second", "gflops", "load_ms", "first_ms"] {
            assert!(number(row, field) > 0.0, "{field} of {row}");
        }
        assert!(number(row, "min_ms") <= number(row, "median_ms") && number(row, "readings") >= 5.0, "{row}");
        let images = 1e3 * number(row, "batch") / number(row, "median_ms");
        assert!((number(row, "images_per_second") / images - 1.0).abs() < 1e-9, "not {images} images/s: {row}");
        if cfg!(target_os = "linux") {
            assert!((5.0..500.0).contains(&number(row, "peak_rss_mib")), "{row}");
        }
    }
    let lenet: Vec<_> = rows.iter().filter(|row| row["model"] == "lenet5" && row["batch"] == 2).collect();
    let order: Vec<_> =
        lenet.iter().map(|row| (row["mode"].as_str().unwrap(), row["device"].as_str().unwrap())).collect();
    let expected: Vec<_> =
        ["infer", "train"].into_iter().flat_map(|mode| DEVICES.iter().map(move |&on| (mode, on))).collect();
    assert_eq!(order, expected);
}

#[test]
fn the_way_of_images_to_batches_is_measured_in_parts() {
    let folder = temp();
    let rows = bench(folder.path(), &["--data", "--threads", "2"]);
    let works: Vec<_> =
        rows.iter().map(|row| (row["work"].as_str().unwrap(), row["threads"].as_u64().unwrap())).collect();
    assert_eq!(works, [("crop, mirror and normalize, to train", 1), ("batches of 128, to train", 2)]);
    for row in &rows {
        let (all, each) = (number(row, "images_per_second"), number(row, "per_core"));
        assert!(all > 0.0 && (each * number(row, "threads") / all - 1.0).abs() < 1e-9, "{row}");
    }
    fs::create_dir(folder.path().join("photos")).unwrap();
    assert!(error(folder.path(), &["bench", "--data", "photos"]).contains("photos holds no image"));
    let pixels = (0..120 * 90 * 3).map(|at| (at % 251) as u8).collect();
    let photograph = image::RgbImage::from_raw(120, 90, pixels).unwrap();
    photograph.save(folder.path().join("photos/1.jpg")).unwrap();
    let rows = bench(folder.path(), &["--data", "photos", "--threads", "1"]);
    let of_photographs = rows.iter().filter(|row| row["images"] == "photographs").count();
    assert_eq!((of_photographs, rows.len()), (8, 10), "{rows:?}");
}

#[test]
fn a_training_step_is_measured_with_checkpointing() {
    let folder = temp();
    let arguments = ["resnet20_cifar", "--devices", "flex", "--mode", "train", "--batch", "64"];
    let plain = &bench(folder.path(), &arguments)[0];
    let rows = bench(folder.path(), &[&arguments[..], &["--checkpointing"]].concat());
    assert_eq!((rows[0]["checkpointing"].as_bool(), plain["checkpointing"].as_bool()), (Some(true), None));
    if cfg!(target_os = "linux") {
        let [plain, checkpointed] = [plain, &rows[0]].map(|row| number(row, "peak_rss_mib"));
        assert!(checkpointed < 0.8 * plain, "{checkpointed} MiB, and {plain} MiB without");
    }
    let told = error(folder.path(), &["bench", "lenet5", "--checkpointing"]);
    assert!(told.contains("--checkpointing is for training"), "{told}");
    let arguments = ["bench", "lenet5", "--devices", "flex", "--mode", "train", "--checkpointing", "--json"];
    let row = &parse(&convzoo(folder.path(), &arguments))[0];
    assert!(row["error"].as_str().unwrap().contains("would save no memory"), "{row}");
}

#[test]
fn what_cannot_be_measured_is_one_row_with_its_reason() {
    let folder = temp();
    fs::write(folder.path().join("crash.sh"), "read job; echo 'memory allocation of 9 bytes failed' >&2; kill -9 $$")
        .unwrap();
    fs::write(folder.path().join("hang.sh"), "exec sleep 100").unwrap();
    let arguments = [
        "lenet5",
        "squeezenet1_1",
        "--devices",
        "flex,cuda:7",
        "--input",
        "1x32x32",
        "--timeout",
        "20",
        "--peer",
        "crash=sh crash.sh",
        "--peer",
        "gone=./gone",
        "--peer",
        "mute=true",
    ];
    let rows = bench(folder.path(), &arguments);
    assert_eq!(rows.len(), 2 * 5);
    let reason = |model: &str, device: &str| {
        let row = rows.iter().find(|row| row["model"] == model && row["device"] == device);
        row.unwrap()["error"].as_str().map(str::to_owned)
    };
    assert_eq!(reason("lenet5", "flex"), None);
    for (device, part) in [
        ("cuda:7", "cuda"),
        ("crash", "out of memory: memory allocation of 9 bytes failed"),
        ("gone", "cannot start"),
        ("mute", "ended with exit status: 0"),
    ] {
        let told = reason("lenet5", device).unwrap_or_default();
        assert!(told.contains(part), "{device} told: {told}");
    }

    let arguments = ["vgg16", "--devices", "flex", "--batch", "65536", "--mode", "train"];
    let output = convzoo(folder.path(), &[&["bench", "--json"], &arguments[..]].concat());
    let rows = parse(&output);
    assert!(rows[0]["error"].as_str().unwrap().starts_with("needs at least 36"), "{rows}");
    assert_eq!(output.status.code(), Some(1), "nothing was measured");

    let rows = parse(&convzoo(folder.path(), &["bench", "--json", "vgg11", "--input", "3x16x16", "--devices", "flex"]));
    assert_eq!(rows[0]["error"], "vgg11 needs images of at least 32×32, not 16×16");
    let hang = ["lenet5", "--devices", "flex", "--peer", "hang=sh hang.sh", "--timeout", "1"];
    assert_eq!(bench(folder.path(), &hang)[1]["error"], "not done within 1 s; --timeout gives more");
}

/// A peer whose passes always take the same time.
const PEER: &str = r#"
read job
echo 'a library talks'
echo '{"ready": {"load_ms": 7, "first_ms": 9}}'
while read request; do echo '{"times": {"ms": [30, 10, 20], "peak_rss_mib": 5}}'; done
"#;

#[test]
fn a_peer_is_measured_by_turns_with_the_devices() {
    let folder = temp();
    fs::write(folder.path().join("peer.sh"), PEER).unwrap();
    let arguments = ["lenet5", "--devices", "flex", "--batch", "4", "--peer", "steady=sh peer.sh"];
    let row = &bench(folder.path(), &arguments)[1];
    assert_eq!((row["device"].as_str(), number(row, "median_ms"), number(row, "min_ms")), (Some("steady"), 20.0, 10.0));
    assert_eq!((number(row, "load_ms"), number(row, "first_ms"), number(row, "peak_rss_mib")), (7.0, 9.0, 5.0));
    assert_eq!(number(row, "images_per_second"), 200.0);
    // 416,520 multiply-adds, four images, two operations each.
    assert!((number(row, "gflops") - 0.166_608).abs() < 1e-9, "{row}");
}

#[test]
fn a_change_is_told_from_noise() {
    let folder = temp();
    fs::write(folder.path().join("peer.sh"), PEER).unwrap();
    let arguments = ["lenet5", "--devices", "flex", "--peer", "steady=sh peer.sh"];
    let rows = bench(folder.path(), &arguments);
    fs::write(folder.path().join("old.json"), serde_json::to_string(&rows).unwrap()).unwrap();
    let again = bench(folder.path(), &[&arguments[..], &["--compare", "old.json"]].concat());
    assert_eq!(again[1]["change"]["verdict"], "same");

    let mut slower = rows.clone();
    for field in ["median_ms", "min_ms"] {
        slower[1][field] = Value::from(10.0 * number(&rows[1], field));
    }
    fs::write(folder.path().join("slower.json"), serde_json::to_string(&slower).unwrap()).unwrap();
    let again = bench(folder.path(), &[&arguments[..], &["--compare", "slower.json"]].concat());
    let change = &again[1]["change"];
    assert_eq!((change["verdict"].as_str(), change["ratio"].as_f64()), (Some("faster"), Some(0.1)));
    let other = bench(folder.path(), &["lenet5", "--devices", "flex", "--batch", "2", "--compare", "slower.json"]);
    assert_eq!(other[0].get("change"), None, "another batch size is not compared");
}

#[test]
fn a_profile_has_the_time_of_every_layer() {
    let folder = temp();
    let rows = bench(folder.path(), &["lenet5", "--devices", "flex", "--kernels", "off", "--profile"]);
    let layers = rows[0]["layers"].as_array().unwrap();
    let names: Vec<_> = layers.iter().map(|layer| layer["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["c1", "s2", "c3", "s4", "c5", "f6", "output", "between layers"]);
    assert!(layers.iter().all(|layer| number(layer, "median_ms") > 0.0), "{layers:?}");
    assert!(number(&layers[0], "gflops") > 0.0, "{layers:?}");
}

#[test]
fn a_profile_of_training_has_each_layers_part_in_each_part_of_the_step() {
    let folder = temp();
    let rows = bench(folder.path(), &["resnet20_cifar", "--devices", "flex", "--mode", "train", "--profile"]);
    let layers = rows[0]["layers"].as_array().unwrap();
    let layer = |name: &str| {
        layers.iter().find(|layer| layer["name"] == name).unwrap_or_else(|| panic!("no {name} in {layers:?}"))
    };
    let parts = ["forward_ms", "input_gradient_ms", "weight_gradient_ms", "update_ms"];
    let spent = |name: &str| parts.map(|part| number(layer(name), part) > 0.0);
    assert_eq!(spent("conv1"), [true, false, true, true], "the images have no gradient");
    assert_eq!(spent("layer1.0.conv1"), [true; 4]);
    assert_eq!(spent("layer1.0.bn1"), [true, true, false, true], "its gradients are made together");
    assert_eq!(spent("linear"), [true; 4]);
    let conv = layer("layer1.0.conv1");
    assert_eq!(number(conv, "macs"), 3.0 * 32.0 * 32.0 * 16.0 * 16.0 * 9.0, "forward and both gradients");
    let sum: f64 = parts.iter().map(|part| number(conv, part)).sum();
    assert!((number(conv, "median_ms") - sum).abs() < 1e-9 && number(conv, "least_ms") > 0.0, "{conv}");
    assert_eq!(layers.last().unwrap()["name"], "Burn's operations");
}

#[test]
fn a_fused_networks_profile_has_its_stages_and_the_least_they_take() {
    let folder = temp();
    let rows = bench(folder.path(), &["resnet20_cifar", "--devices", "flex", "--batch", "2", "--profile"]);
    for figure in ["gflops", "weights_gbs", "values_gbs"] {
        assert!(number(&rows[0]["peak"], figure) > 0.0, "{figure} of {}", rows[0]["peak"]);
    }
    let stages = rows[0]["layers"].as_array().unwrap();
    let conv = stages.iter().find(|stage| stage["name"] == "conv1").unwrap_or_else(|| panic!("no conv1 in {stages:?}"));
    assert_eq!(conv["with"], serde_json::json!(["bn1", "relu"]));
    assert_eq!((&conv["kind"], number(conv, "macs")), (&Value::from("planar 3×3"), 2.0 * 32.0 * 32.0 * 16.0 * 27.0));
    for figure in ["multiplications", "weight_bytes", "value_bytes", "least_ms", "median_ms", "min_ms", "gflops"] {
        assert!(number(conv, figure) > 0.0, "{figure} of {conv}");
    }
    assert_eq!(stages.last().unwrap()["name"], "the output");
    let total: f64 = stages.iter().filter_map(|stage| stage["macs"].as_f64()).sum();
    let summary = json(folder.path(), &["summary", "resnet20_cifar", "--json"]);
    assert!(total >= 2.0 * number(&summary, "macs"), "{total} multiply-adds in stages of {summary}");
}

#[test]
fn precisions_are_rows_of_their_own() {
    let folder = temp();
    let names = ["f32", "linear-f16", "bf16"];
    let rows = bench(folder.path(), &["lenet5", "--devices", &DEVICES.join(","), "--precision", &names.join(",")]);
    let precisions: Vec<_> = rows.iter().map(|row| row["precision"].as_str().unwrap()).collect();
    assert_eq!(precisions, names.repeat(DEVICES.len()));
    assert!(rows.iter().take(4).all(|row| number(row, "median_ms") > 0.0), "{rows:?}");
    if cfg!(feature = "ndarray") {
        let error = "the precision linear-f16 needs the device flex with convzoo's kernels on";
        assert_eq!(rows[4]["error"], error);
    }
    let train = convzoo(
        folder.path(),
        &["bench", "lenet5", "--devices", "flex", "--mode", "train", "--precision", "linear-f16", "--json"],
    );
    assert_eq!(parse(&train)[0]["error"], "the precision linear-f16 is for inference");
}

#[test]
fn tables_and_pages_show_what_was_measured() {
    let folder = temp();
    let arguments = ["bench", "lenet5", "--devices", "flex,cuda:7", "--batch", "1,2", "--seconds", "0.02"];
    let output = convzoo(folder.path(), &[&arguments[..], &["--markdown", "--html", "bench.html"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| lenet5 | infer |")).collect();
    assert_eq!(rows.len(), 4, "{text}");
    assert!(rows[1].contains("cuda"), "{text}");
    let page = fs::read_to_string(folder.path().join("bench.html")).unwrap();
    assert_eq!(page.matches("<svg").count(), 3, "two bar charts and one of scaling");
    assert!(page.contains("lenet5") && !page.contains("src=\"http") && !page.contains("href="), "{page}");
    assert!(!page.contains("Accuracy"), "one network without published weights has no trade-off");
    let csv = convzoo(folder.path(), &[&arguments[..], &["--csv"]].concat()).stdout;
    let csv = String::from_utf8(csv).unwrap();
    let lines: Vec<_> = csv.lines().collect();
    assert!(lines.len() == 5 && lines[0].starts_with("model,device,mode,batch,input"), "{csv}");
    assert!(lines[1].starts_with("lenet5,flex,infer,1,1x32x32,f32,true,"), "{csv}");
    let terminal = String::from_utf8(convzoo(folder.path(), &arguments).stdout).unwrap();
    assert!(terminal.contains("median ms") && terminal.contains("cores"), "{terminal}");
}

#[test]
fn a_page_sets_published_accuracy_against_time() {
    let folder = temp();
    let names = ["squeezenet1_1", "shufflenet_v2_x0_5", "lenet5"];
    convzoo(
        folder.path(),
        &[&["bench"], &names[..], &["--device", "flex", "--seconds", "0.01", "--html", "page.html"]].concat(),
    );
    let page = fs::read_to_string(folder.path().join("page.html")).unwrap();
    let chart = &page[page.find("<title>Accuracy against time, batch 1").expect("no such chart")..];
    assert!(names[..2].iter().all(|name| chart.contains(name)), "{chart}");
    assert!(!chart.contains("lenet5"), "no weights of lenet5 are published: {chart}");
}

#[test]
fn mistakes_are_one_error_before_anything_is_measured() {
    let folder = temp();
    fs::write(folder.path().join("x.json"), "{}").unwrap();
    for (arguments, part) in [
        (&["resnet19"][..], "did you mean"),
        (&["--devices", "gpu"], "wgpu[:N]"),
        (&["--batch", "0"], "1..=65536"),
        (&["--mode", "test"], "infer, train"),
        (&["--seconds", "nan"], "expected seconds"),
        (&["--peer", "x"], "NAME=COMMAND"),
        (&["--compare", "none.json"], "cannot open none.json"),
        (&["--compare", "x.json"], "is not what `convzoo bench --json` writes"),
        (&["lenet5", "--devices", "flex", "--seconds", "0.02", "--html", "none/page.html"], "no folder none"),
        (&["--json", "--markdown"], "cannot be used with"),
    ] {
        let told = error(folder.path(), &[&["bench"], arguments].concat());
        assert!(told.contains(part), "{arguments:?} told: {told}");
    }
}
