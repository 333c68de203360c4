//! The numbers of messages' fields in ONNX's definition, `proto/onnx.proto`; a test compares them with it.

/// A module of constants for each message, and for the test a table of them.
macro_rules! messages {
    ($($module:ident = $message:literal { $($field:ident = $number:literal),* $(,)? })*) => {
        $(
            #[doc = concat!("`", $message, "`.")]
            pub mod $module {
                $(pub const $field: u32 = $number;)*
            }
        )*

        #[cfg(test)]
        const MESSAGES: &[(&str, &[(&str, u32)])] =
            &[$(($message, &[$((stringify!($field), $number)),*])),*];
    };
}

messages! {
    model = "ModelProto" {
        IR_VERSION = 1, PRODUCER_NAME = 2, PRODUCER_VERSION = 3, GRAPH = 7, OPSET_IMPORT = 8, METADATA_PROPS = 14,
    }
    opset = "OperatorSetIdProto" { DOMAIN = 1, VERSION = 2 }
    entry = "StringStringEntryProto" { KEY = 1, VALUE = 2 }
    graph = "GraphProto" { NODE = 1, NAME = 2, INITIALIZER = 5, INPUT = 11, OUTPUT = 12 }
    node = "NodeProto" { INPUT = 1, OUTPUT = 2, NAME = 3, OP_TYPE = 4, ATTRIBUTE = 5 }
    attribute = "AttributeProto" { NAME = 1, F = 2, I = 3, INTS = 8, TYPE = 20 }
    attribute_type = "AttributeType" { FLOAT = 1, INT = 2, INTS = 7 }
    value_info = "ValueInfoProto" { NAME = 1, TYPE = 2 }
    value_type = "TypeProto" { TENSOR_TYPE = 1 }
    tensor_type = "Tensor" { ELEM_TYPE = 1, SHAPE = 2 }
    shape = "TensorShapeProto" { DIM = 1 }
    dimension = "Dimension" { DIM_VALUE = 1, DIM_PARAM = 2 }
    tensor = "TensorProto" {
        DIMS = 1, DATA_TYPE = 2, FLOAT_DATA = 4, NAME = 8, RAW_DATA = 9, DOUBLE_DATA = 10, EXTERNAL_DATA = 13,
        DATA_LOCATION = 14,
    }
    data_type = "DataType" {
        FLOAT = 1, UINT8 = 2, INT8 = 3, INT32 = 6, INT64 = 7, FLOAT16 = 10, DOUBLE = 11, BFLOAT16 = 16,
    }
    data_location = "DataLocation" { EXTERNAL = 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFINITION: &str = include_str!("../proto/onnx.proto");

    /// The lines of a message or enumeration of the definition, without those of others within.
    fn lines(name: &str) -> Vec<&'static str> {
        let starts =
            |line: &str, name: &str| ["message", "enum"].iter().any(|kind| line.starts_with(&format!("{kind} {name}")));
        let code = DEFINITION.lines().map(|line| line.split("//").next().unwrap_or_default().trim());
        let body = code.skip_while(|line| !starts(line, &format!("{name} {{"))).skip(1);
        let (mut depth, mut inner, mut lines) = (1, None, Vec::new());
        for line in body {
            if inner.is_none() && starts(line, "") {
                inner = Some(depth);
            }
            depth += line.matches('{').count();
            depth -= line.matches('}').count();
            if inner.is_none() {
                lines.push(line);
            }
            if inner.is_some_and(|outside| depth <= outside) {
                inner = None;
            }
            if depth == 0 {
                return lines;
            }
        }
        panic!("{name} is not defined");
    }

    #[test]
    fn fields_have_the_numbers_of_the_definition() {
        for (message, fields) in MESSAGES {
            // `repeated NodeProto node = 1;` and `FLOAT = 1;`
            let field = |line: &'static str| {
                let (left, right) = line.split_once('=')?;
                let number: String = right.trim().chars().take_while(char::is_ascii_digit).collect();
                Some((left.split_whitespace().next_back()?, number.parse::<u32>().ok()?))
            };
            let defined: Vec<_> = lines(message).into_iter().filter_map(field).collect();
            for (field, number) in *fields {
                let found = defined.iter().find(|(name, _)| name.eq_ignore_ascii_case(field));
                assert_eq!(found.map(|(_, number)| *number), Some(*number), "{message}.{field}");
            }
        }
    }
}
