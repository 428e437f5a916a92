//! Pickles as the old ends write them, and ten thousand as an attacker would.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn text(text: &str) -> Plain {
    Plain::Text(text.to_owned())
}

#[test]
fn what_java_writes_is_read_and_written_byte_for_byte() {
    let cases = [
        (
            "80027d7100285808000000696e74657276616c710158030000003230307102752e",
            vec![("interval", text("200"))],
        ),
        ("80027d710028752e", vec![]),
        (
            "80027d71002858010000006171015d71022858010000003171036558010000006271046802752e",
            vec![("a", Plain::List(vec![text("1")])), ("b", Plain::List(vec![text("1")]))],
        ),
    ];
    for (bytes, pairs) in cases {
        let value = Plain::Dict(pairs.into_iter().map(|(key, value)| (text(key), value)).collect());
        assert_eq!(read(&hex(bytes)), Ok(value.clone()), "{bytes}");
        assert_eq!(write(&value), hex(bytes), "{bytes}");
    }
}

#[test]
fn what_python_writes_is_read_in_all_three_protocols() {
    // {'a': 1, 'b': [1.5, True, None, (u'é', 'x')], 'n': -70000} of Python 2.7, protocols 0, 1 and 2.
    let zero = b"(dp0\nS'a'\np1\nI1\nsS'b'\np2\n(lp3\nF1.5\naI01\naNa(V\xe9\np4\nS'x'\np5\ntp6\nasS'n'\np7\nI-70000\ns.";
    let one = b"}q\x00(U\x01aq\x01K\x01U\x01bq\x02]q\x03(G?\xf8\x00\x00\x00\x00\x00\x00I01\nN(X\x02\x00\x00\x00\xc3\xa9q\x04U\x01xq\x05tq\x06eU\x01nq\x07J\x90\xee\xfe\xffu.";
    let two = b"\x80\x02}q\x00(U\x01aq\x01K\x01U\x01bq\x02]q\x03(G?\xf8\x00\x00\x00\x00\x00\x00\x88NX\x02\x00\x00\x00\xc3\xa9q\x04U\x01xq\x05\x86q\x06eU\x01nq\x07J\x90\xee\xfe\xffu.";
    let bytes = |text: &str| Plain::Bytes(text.as_bytes().to_vec());
    let expected = Plain::Dict(vec![
        (bytes("a"), Plain::Int(1)),
        (
            bytes("b"),
            Plain::List(vec![
                Plain::Float(1.5),
                Plain::Bool(true),
                Plain::None,
                Plain::Tuple(vec![text("é"), bytes("x")]),
            ]),
        ),
        (bytes("n"), Plain::Int(-70_000)),
    ]);
    for pickle in [&zero[..], &one[..], &two[..]] {
        assert_eq!(read(pickle), Ok(expected.clone()));
    }
    assert_eq!(expected.get("a"), Some(&Plain::Int(1)));
    assert_eq!(read(b"V\\u6f22\\U0001f600\\ud83d\\ude00\n."), Ok(text("漢😀😀")));
    assert_eq!(read(b"S'a\\x00\\'\\n\\\\'\n."), Ok(Plain::Bytes(b"a\0'\n\\".to_vec())));
    assert_eq!(read(b"L-12L\n."), Ok(Plain::Int(-12)));
    assert_eq!(read(b"\x80\x02\x8a\x02\xff\x7f."), Ok(Plain::Int(32767)));
    assert_eq!(read(b"\x80\x02\x8a\x01\xff."), Ok(Plain::Int(-1)));
    assert_eq!(read(b"\x80\x02\x8b\x00\x00\x00\x00."), Ok(Plain::Int(0)));
}

#[test]
fn dates_are_read_as_java_and_python_write_them() {
    let date = DateTime { year: 2017, month: 7, day: 14, hour: 2, minute: 40, second: 0, microsecond: 0 };
    let java = b"cdatetime\ndatetime\n(M\xe1\x07K\x07K\x0eK\x02K(K\x00K\x00tRq\x00";
    let java = [&b"\x80\x02"[..], java, b"."].concat();
    assert_eq!(read(&java), Ok(Plain::DateTime(date)));
    assert_eq!(write(&Plain::DateTime(date)), java);
    let python =
        b"\x80\x02cdatetime\ndatetime\nq\x00U\n\x07\xe1\x07\x0e\x02(\x00\x00\x00\x00q\x01\x85q\x02Rq\x03.";
    assert_eq!(read(python), Ok(Plain::DateTime(date)));
    assert_eq!(date.to_string(), "2017-07-14T02:40:00");
    assert!(matches!(read(b"cdatetime\ndatetime\n(K\x01K\x0dK\x01tR."), Err(PickleError::Malformed { .. })));
    assert!(matches!(read(b"cdatetime\ndatetime\n."), Err(PickleError::Malformed { .. })), "a bare class");
}

#[test]
fn what_builds_or_calls_is_refused_by_name() {
    let named = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
    assert!(named(b"cos\nsystem\n(S'id'\ntR.").contains("os.system"));
    assert!(named(b"c__builtin__\neval\n(S'1'\ntR.").contains("__builtin__.eval"));
    assert!(named(b"(S'id'\nios\nsystem\n.").contains("INST"));
    assert!(named(b"(cdatetime\ndatetime\no.").contains("OBJ"));
    assert!(named(b"}(K\x01K\x02ub.").contains("BUILD"));
    assert!(named(b"\x80\x02)\x81.").contains("NEWOBJ"));
    assert!(named(b"\x82\x01.").contains("EXT1"));
    assert!(named(b"\x83\x01\x00.").contains("EXT2"));
    assert!(named(b"\x84\x01\x00\x00\x00.").contains("EXT4"));
    assert!(named(b"P1\n.").contains("PERSID"));
    assert!(named(b"K\x01Q.").contains("BINPERSID"));
    assert!(named(b"(S'x'\ntR.").contains("malformed") && named(b"K\x01(tR.").contains("REDUCE"));
    assert_eq!(read(b"\x80\x03N."), Err(PickleError::Protocol(3)));
    assert_eq!(read(b"\x80\x02N.N."), Err(PickleError::Trailing { at: 4 }));
    assert_eq!(read(b"]q\x00(h\x00e."), Err(PickleError::Cyclic));
    assert_eq!(read(b"}q\x00(K\x01h\x00u."), Err(PickleError::Cyclic));
}

#[test]
fn bounds_hold_for_size_depth_and_repetition() {
    assert_eq!(read(&vec![b'N'; MAX_BYTES + 1]), Err(PickleError::TooLarge(MAX_BYTES + 1)));
    let nested = |depth: usize| [vec![b']'; depth], vec![b'a'; depth - 1], vec![b'.']].concat();
    assert!(read(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(read(&nested(MAX_DEPTH + 1)), Err(PickleError::TooDeep));
    assert_eq!(read(&nested(MAX_ITEMS - 1)), Err(PickleError::TooDeep), "deeper than any call stack");
    assert_eq!(read(&vec![b'N'; MAX_ITEMS + 1]), Err(PickleError::TooMany));
    // Each list holds the one before it ten times: 10^30 values in 400 bytes.
    let mut laughs = b"]q\x00(K\x01e".to_vec();
    for level in 1..31u8 {
        laughs.extend_from_slice(&[b']', b'q', level, b'(']);
        laughs.extend((0..10).flat_map(|_| [b'h', level - 1]));
        laughs.push(b'e');
    }
    laughs.push(b'.');
    let begun = Instant::now();
    assert!(read(&laughs).is_err());
    let mut texts = [&b"(X"[..], &100_000u32.to_le_bytes(), &vec![b'x'; 100_000], b"q\x00"].concat();
    texts.extend((0..10_000).flat_map(|_| [b'h', 0]));
    texts.extend_from_slice(b"l.");
    assert_eq!(read(&texts), Err(PickleError::TooMany));
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(read(b"X\xff\xff\xff\xffabc."), Err(PickleError::Truncated { at: 5 }));
    assert_eq!(read(b"T\xff\xff\xff\x7fabc."), Err(PickleError::Truncated { at: 5 }));
}

/// A generator without state outside: the same pickles in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

#[test]
fn ten_thousand_hostile_pickles_are_refused_in_bounded_time() {
    let mut dice = Dice(20_261_124);
    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
    for round in 0..10_000 {
        let modules = ["os", "posix", "subprocess", "__builtin__", "sys", "datetime", "copy_reg", "socket"];
        let names = ["system", "popen", "eval", "exec", "timedelta", "_reconstructor", "getattr", "Popen"];
        let module = modules[dice.roll(modules.len())];
        let name = names[dice.roll(names.len())];
        let mut evil = match round % 10 {
            0 => format!("c{module}\n{name}\n(S'touch /tmp/x'\ntR").into_bytes(),
            1 => format!("(S'touch /tmp/x'\ni{module}\n{name}\n").into_bytes(),
            2 => format!("(c{module}\n{name}\nS'id'\no").into_bytes(),
            3 => b"}(U\x03keyK\x01ub".to_vec(),
            4 => {
                let kind = dice.roll(3);
                [&[0x82 + u8::try_from(kind).unwrap()][..], &[1, 0, 0, 0][..1 << kind]].concat()
            }
            5 => [&b"Pabc\n"[..], b"K\x07Q"][dice.roll(2)].to_vec(),
            6 => {
                let opcode = [b'X', b'T', 0x8b][dice.roll(3)];
                let length = u32::MAX - u32::try_from(dice.roll(1 << 30)).unwrap();
                [&[opcode][..], &length.to_le_bytes(), b"short"].concat()
            }
            7 => {
                let depth = MAX_DEPTH + 1 + dice.roll(15_000);
                [vec![b']'; depth], vec![b'a'; depth - 1]].concat()
            }
            8 => {
                let via = u8::try_from(dice.roll(200)).unwrap();
                [
                    &[b']', b'q', via, b']', b'q', via + 1, b'(', b'h', via, b'e', b'a'][..],
                    &[b'h', via + 1, b'0'],
                ]
                .concat()[..]
                    .to_vec()
            }
            _ => {
                [&[b']', b'q', 9][..], &[b'}', b'q', 8, b'('], b"U\x01kh\x09", b"u", b"a", b"h\x08a"].concat()
            }
        };
        evil.push(b'.');
        // In front of it what an honest pickle begins with, sometimes.
        if dice.roll(2) == 0 && !matches!(round % 10, 7..=9) {
            evil = [&b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01"[..], &evil[..evil.len() - 1], b"u."].concat();
        }
        let started = Instant::now();
        let result = read(&evil);
        slowest = slowest.max(started.elapsed());
        assert!(result.is_err(), "round {round}: {:?} gave {result:?}", String::from_utf8_lossy(&evil));
    }
    assert!(slowest < Duration::from_millis(500), "the slowest took {slowest:?}");
    assert!(begun.elapsed() < Duration::from_secs(20), "all took {:?}", begun.elapsed());
}

fn plain() -> impl Strategy<Value = Plain> {
    let leaf = prop_oneof![
        Just(Plain::None),
        any::<bool>().prop_map(Plain::Bool),
        any::<i64>().prop_map(Plain::Int),
        (-1e12..1e12f64).prop_map(Plain::Float),
        ".{0,12}".prop_map(Plain::Text),
        proptest::collection::vec(any::<u8>(), 0..8).prop_map(Plain::Bytes),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let dict = proptest::collection::btree_map("[a-z]{1,6}", inner.clone(), 0..5);
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Plain::List),
            proptest::collection::vec(inner, 0..4).prop_map(Plain::Tuple),
            dict.prop_map(|dict| Plain::Dict(
                dict.into_iter().map(|(key, value)| (Plain::Text(key), value)).collect()
            )),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(value in plain()) {
        prop_assert_eq!(read(&write(&value)), Ok(value));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(&bytes);
    }

    #[test]
    fn opcodes_in_any_order_do_not_make_the_reader_panic(
        picks in proptest::collection::vec(0usize..38, 0..200)
    ) {
        let pieces: [&[u8]; 38] = [
            b"(", b".", b"N", b"\x88", b"\x89", b"I7\n", b"L7L\n", b"F1.5\n", b"S'x'\n", b"Vx\n", b"K\x01",
            b"M\x01\x00", b"J\x01\x00\x00\x00", b"\x8a\x01\x05", b"G\x00\x00\x00\x00\x00\x00\x00\x00", b"U\x01x",
            b"T\x01\x00\x00\x00x", b"X\x01\x00\x00\x00x", b"]", b"}", b")", b"l", b"t", b"d", b"\x85", b"\x86",
            b"\x87", b"a", b"e", b"s", b"u", b"p1\n", b"q\x01", b"r\x01\x00\x00\x00", b"g1\n", b"h\x01",
            b"cdatetime\ndatetime\n", b"R",
        ];
        let mut bytes: Vec<u8> = picks.into_iter().flat_map(|pick| pieces[pick].to_vec()).collect();
        let _ = read(&bytes);
        bytes.push(b'.');
        let _ = read(&bytes);
    }
}
