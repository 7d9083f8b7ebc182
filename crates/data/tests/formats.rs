//! What is written is read again; what is wrong is said.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use trimtab_data::formats::star::{self, Star};
use trimtab_data::formats::{self, NpzBatch, cryoppp, eman_box, mrc, npy, npz, png, tiff, topaz};
use trimtab_data::{Image, Labels, MicrographParticles, Particle};

fn here() -> &'static Path {
    Path::new("file")
}

fn written(
    name: &str,
    write: impl FnOnce(&Path) -> trimtab_data::Result<()>,
) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    write(&path).unwrap();
    (folder, path)
}

fn image_of(value: impl Strategy<Value = f32> + Clone) -> impl Strategy<Value = Image> {
    (1usize..9, 1usize..9).prop_flat_map(move |(width, height)| {
        prop::collection::vec(value.clone(), width * height).prop_map(move |pixels| Image {
            width,
            height,
            pixels,
        })
    })
}

fn finite() -> impl Strategy<Value = f32> + Clone {
    any::<f32>().prop_filter("finite", |value| value.is_finite())
}

fn labels_of(value: impl Strategy<Value = i32> + Clone) -> impl Strategy<Value = Labels> {
    (1usize..9, 1usize..9).prop_flat_map(move |(width, height)| {
        prop::collection::vec(value.clone(), width * height).prop_map(move |values| Labels {
            width,
            height,
            values,
        })
    })
}

/// Equal bit for bit: `-0.0` and NaN count.
#[track_caller]
fn assert_same(found: &Image, expected: &Image) {
    assert_eq!((found.width, found.height), (expected.width, expected.height));
    let bits = |image: &Image| image.pixels.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(found), bits(expected));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn float_formats_return_every_bit(image in image_of(any::<f32>())) {
        // A reader may return another NaN than the one written.
        let image = Image { pixels: image.pixels.into_iter().map(|v| if v.is_nan() { f32::NAN } else { v }).collect(), ..image };
        for name in ["a.tif", "a.npy", "a.mrc", "a.mrc.gz"] {
            let (_folder, path) = written(name, |path| match name {
                "a.tif" => tiff::write_f32(path, &image),
                "a.npy" => npy::write(path, &image),
                _ => mrc::write(path, &image, mrc::Mode::Float32, 1.0),
            });
            assert_same(&formats::read_image(&path).unwrap(), &image);
            prop_assert_eq!(formats::image_size(&path).unwrap(), (image.width, image.height));
        }
    }

    #[test]
    fn label_formats_return_every_label(labels in labels_of(any::<i32>())) {
        let (_folder, path) = written("a.tif", |path| tiff::write_labels(path, &labels));
        prop_assert_eq!(&formats::read_labels(&path).unwrap(), &labels);
        let (_folder, path) = written("a.npy", |path| npy::write_labels(path, &labels));
        prop_assert_eq!(&formats::read_labels(&path).unwrap(), &labels);
    }

    #[test]
    fn png_labels_of_16_bits_return(labels in labels_of(0..65536i32)) {
        let (_folder, path) = written("a.png", |path| png::write_labels(path, &labels));
        prop_assert_eq!(&formats::read_labels(&path).unwrap(), &labels);
        let small = Labels { values: labels.values.iter().map(|value| value % 256).collect(), ..labels };
        let (_folder, path) = written("a.png", |path| png::write_labels(path, &small));
        prop_assert_eq!(&formats::read_labels(&path).unwrap(), &small);
        prop_assert_eq!(&png::decode(&std::fs::read(&path).unwrap(), &path).unwrap().samples,
            &formats::Samples::U8(small.values.iter().map(|&value| value as u8).collect()));
    }

    #[test]
    fn integer_pictures_return(labels in labels_of(0..65536i32)) {
        let Labels { width, height, values } = labels;
        let words: Vec<u16> = values.iter().map(|&value| value as u16).collect();
        let bytes: Vec<u8> = values.iter().map(|&value| value as u8).collect();
        let wide = Image { width, height, pixels: words.iter().copied().map(f32::from).collect() };
        let narrow = Image { width, height, pixels: bytes.iter().copied().map(f32::from).collect() };
        let (_folder, path) = written("a", |path| png::write_grey16(path, width, height, &words));
        assert_same(&formats::read_image(&path).unwrap(), &wide);
        let (_folder, path) = written("a", |path| tiff::write_grey16(path, width, height, &words));
        assert_same(&formats::read_image(&path).unwrap(), &wide);
        let (_folder, path) = written("a", |path| png::write_grey8(path, width, height, &bytes));
        assert_same(&formats::read_image(&path).unwrap(), &narrow);
        let (_folder, path) = written("a", |path| tiff::write_grey8(path, width, height, &bytes));
        assert_same(&formats::read_image(&path).unwrap(), &narrow);
        let grey: Vec<[u8; 3]> = bytes.iter().map(|&value| [value; 3]).collect();
        let (_folder, path) = written("a", |path| png::write_rgb8(path, width, height, &grey));
        assert_same(&formats::read_image(&path).unwrap(), &narrow);
    }

    #[test]
    fn every_mrc_mode_returns_the_values_of_its_range(labels in labels_of(-128..128i32), pixel_size in 0.01..100.0f64) {
        let image = |offset: f32| Image {
            width: labels.width,
            height: labels.height,
            pixels: labels.values.iter().map(|&value| value as f32 + offset).collect(),
        };
        for (mode, offset) in [
            (mrc::Mode::Int8, 0.0),
            (mrc::Mode::Int16, 1000.0),
            (mrc::Mode::Float32, 0.1),
            (mrc::Mode::Uint16, 60000.0),
            (mrc::Mode::Float16, 0.5),
        ] {
            let stack = [image(offset), image(offset)];
            let (_folder, path) = written("a.mrcs", |path| mrc::write_stack(path, &stack, mode, pixel_size));
            let (header, found) = mrc::read_stack(&path).unwrap();
            prop_assert_eq!(&found[..], &stack[..]);
            prop_assert_eq!((header.mode, header.depth), (mode, 2));
            let (x, y) = header.pixel_size.unwrap();
            prop_assert!((x / pixel_size - 1.0).abs() < 1e-6 && (y / pixel_size - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn numpy_batches_return(image in image_of(finite()), count in 1usize..4, label in any::<i32>()) {
        let images = vec![image.clone(); count];
        for masks in [None, Some(3), Some(label)] {
            let masks = masks.map(|value| vec![Labels::filled(image.width, image.height, value); count]);
            let batch = NpzBatch { images: images.clone(), masks };
            let (_folder, path) = written("a.npz", |path| npz::write(path, &batch));
            prop_assert_eq!(&npz::read(&path).unwrap(), &batch);
            let info = npz::inspect(&path).unwrap();
            prop_assert_eq!((info.count, info.width, info.height), (count, image.width, image.height));
            prop_assert_eq!(info.has_masks, batch.masks.is_some());
        }
        let (_folder, path) = written("a.npy", |path| npy::write_images(path, &images));
        prop_assert_eq!(npy::read_images(&path).unwrap(), images);
    }

    #[test]
    fn another_reader_of_numpy_arrays_agrees(image in image_of(finite())) {
        let (_folder, path) = written("a.npy", |path| npy::write(path, &image));
        let bytes = std::fs::read(&path).unwrap();
        let array = npyz::NpyFile::new(&bytes[..]).unwrap();
        prop_assert_eq!(array.shape(), &[image.height as u64, image.width as u64]);
        prop_assert_eq!(array.into_vec::<f32>().unwrap(), image.pixels);
    }

    #[test]
    fn any_bytes_are_an_error_or_a_picture(mut bytes in prop::collection::vec(any::<u8>(), 0..1500), start in 0usize..8) {
        let magic: &[u8] = [
            &b"\x89PNG\r\n\x1a\n"[..], b"\xFF\xD8\xFF", b"II*\0", b"\x93NUMPY\x01\0\x40\0{'descr': '<f4',", b"PK\x03\x04",
            b"\x1F\x8B\x08\0", b"MM\0*", b"",
        ][start];
        bytes.splice(0..0, magic.iter().copied());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mrc");
        std::fs::write(&path, &bytes).unwrap();
        let _ = formats::read_image(&path);
        let _ = formats::read_labels(&path);
        let _ = formats::image_size(&path);
        let _ = npz::read(&path);
        let _ = npz::inspect(&path);
        let _ = mrc::read_stack(&path);
    }
}

#[test]
fn an_mrc_mode_refuses_what_it_cannot_hold() {
    for (mode, value) in [
        (mrc::Mode::Int8, 128.0),
        (mrc::Mode::Int8, 0.5),
        (mrc::Mode::Int16, -32769.0),
        (mrc::Mode::Uint16, -1.0),
        (mrc::Mode::Uint16, f32::NAN),
        (mrc::Mode::Float16, 1e6),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut image = Image::filled(2, 2, 0.0);
        image.pixels[3] = value;
        let error = mrc::write(&folder.path().join("a.mrc"), &image, mode, 1.0).unwrap_err().to_string();
        assert!(error.contains(&format!("the value {value} at x 1, y 1 does not fit MRC mode")), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_header_that_asks_for_more_than_the_file_has_is_refused_before_memory_is_taken() {
    let (_folder, path) =
        written("a.mrc", |path| mrc::write(path, &Image::filled(2, 2, 0.0), mrc::Mode::Int8, 1.0));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[0..12].copy_from_slice(&[0xFF, 0xFF, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0x7F, 1, 0, 0, 0]);
    let error = mrc::from_bytes(&bytes, here()).unwrap_err().to_string();
    assert!(error.contains("need 4611686014132421633 bytes, but the file has 1028"), "{error}");
    bytes[8..12].copy_from_slice(&[0xFF, 0xFF, 0xFF, 0x7F]);
    assert!(mrc::from_bytes(&bytes, here()).unwrap_err().to_string().contains("too many"));

    let npy = |shape: &str| {
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\0".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.bytes());
        npy::from_bytes(&bytes, here()).unwrap_err().to_string()
    };
    assert!(npy("(1000000, 1000000)").contains("needs 4000000000000 bytes, but the file has 0"));
    assert!(npy("(4294967296, 4294967296)").contains("too large"));
    assert!(npy("(0, 4)").contains("empty array"));
    assert!(npy(&"(".repeat(60000)).contains("not a number"));
}

#[test]
fn the_message_for_unknown_content_lists_what_is_accepted() {
    let (_folder, path) = written("a.bin", |path| {
        std::fs::write(path, "hello world").unwrap();
        Ok(())
    });
    assert!(formats::read_image(&path).unwrap_err().to_string().ends_with(
        "a.bin: not a valid image file: the content is not recognised (it starts with 68 65 6c 6c 6f 20 77 6f); \
         accepted are PNG, JPEG, TIFF, MRC (also .mrc.gz) and NPY"
    ));
    let error = formats::read_coordinates(&path).unwrap_err().to_string();
    assert!(error.contains("a.bin:1: ") && error.contains("accepted are RELION STAR"), "{error}");
    std::fs::write(&path, "").unwrap();
    assert!(formats::read_image(&path).unwrap_err().to_string().contains("the file is empty"));
    assert!(formats::read_coordinates(&path).unwrap_err().to_string().contains("the file is empty"));
    assert!(
        formats::read_image(Path::new("no/such.png"))
            .unwrap_err()
            .to_string()
            .starts_with("no/such.png: cannot read")
    );
}

#[test]
fn the_content_decides_and_not_the_name() {
    let (_folder, path) =
        written("a.png", |path| mrc::write(path, &Image::filled(3, 2, 7.0), mrc::Mode::Int8, 1.0));
    assert_eq!(formats::read_image(&path).unwrap(), Image::filled(3, 2, 7.0));
    // An MRC file of before the year 2000 has neither identifier nor stamp.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[208..216].fill(0);
    let old = path.with_extension("mrc");
    std::fs::write(&old, &bytes).unwrap();
    assert_eq!(formats::read_image(&old).unwrap(), Image::filled(3, 2, 7.0));
    std::fs::write(&path, &bytes).unwrap();
    assert!(formats::read_image(&path).is_err());
}

#[test]
fn image_extensions_are_recognised_in_any_case() {
    for name in ["a.png", "b.TIF", "c.mrc.gz", "d.x.npy"] {
        assert!(formats::has_image_extension(Path::new(name)), "{name}");
    }
    for name in ["a.gz", ".png", "png", "a.npz", "a.star"] {
        assert!(!formats::has_image_extension(Path::new(name)), "{name}");
    }
}

#[test]
fn a_wrong_number_of_values_is_refused_by_every_writer() {
    let path = Path::new("never/written");
    let image = Image { width: 2, height: 2, pixels: vec![0.0; 3] };
    let labels = Labels { width: 0, height: 0, values: vec![] };
    let errors = [
        png::write_grey8(path, 2, 2, &[0; 5]).unwrap_err(),
        png::write_labels(path, &labels).unwrap_err(),
        tiff::write_f32(path, &image).unwrap_err(),
        npy::write(path, &image).unwrap_err(),
        npy::write_labels(path, &labels).unwrap_err(),
        mrc::write(path, &image, mrc::Mode::Float32, 1.0).unwrap_err(),
    ];
    for error in errors {
        assert!(error.to_string().starts_with("never/written: cannot write "), "{error}");
    }
    assert!(mrc::write_stack(path, &[], mrc::Mode::Float32, 1.0).is_err());
    assert!(npy::write_images(path, &[Image::filled(1, 2, 0.0), Image::filled(2, 1, 0.0)]).is_err());
    let batch =
        NpzBatch { images: vec![Image::filled(1, 2, 0.0)], masks: Some(vec![Labels::filled(2, 1, 0)]) };
    assert!(npz::write(path, &batch).unwrap_err().to_string().contains("the masks (1 of 2 x 1) do not fit"));
    assert!(png::write_labels(path, &Labels::filled(1, 1, -1)).unwrap_err().to_string().contains("label -1"));
}

// --- coordinates

fn coordinate() -> impl Strategy<Value = f64> {
    prop_oneof![
        (-1000i32..100_000).prop_map(f64::from),
        -1e3..1e5f64,
        any::<f64>().prop_filter("finite", |value| value.is_finite()),
    ]
}

fn particle() -> impl Strategy<Value = Particle> {
    let score = prop::option::of(coordinate().prop_filter("the placeholder", |&score| score != -999.0));
    (coordinate(), coordinate(), prop::option::of(0.001..1e4f64), score)
        .prop_map(|(x, y, diameter, score)| Particle { x, y, diameter, score })
}

/// Any text a micrograph could be called, without line breaks.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9_./-]{1,20}\\.mrc",
        "[ -~]{0,12}",
        "\\PC{0,8}",
        "(data_|loop_|#|_|;|'|\"|a b)[ '\"#a]{0,4}"
    ]
}

fn micrographs() -> impl Strategy<Value = Vec<MicrographParticles>> {
    prop::collection::btree_map(name(), prop::collection::vec(particle(), 1..6), 0..5).prop_map(|map| {
        map.into_iter().map(|(micrograph, particles)| MicrographParticles { micrograph, particles }).collect()
    })
}

proptest! {
    #[test]
    fn star_returns_every_particle(micrographs in micrographs()) {
        // Such a name has no way into a STAR file.
        let unwritable = |name: &str| name.contains("' ") && name.contains("\" ");
        prop_assume!(!micrographs.iter().any(|m| unwritable(&m.micrograph)));
        let (_folder, path) = written("a.star", |path| star::write_coordinates(path, &micrographs));
        prop_assert_eq!(formats::read_coordinates(&path).unwrap(), micrographs);
    }

    #[test]
    fn topaz_returns_every_particle(micrographs in micrographs()) {
        let (_folder, path) = written("a.txt", |path| topaz::write(path, &micrographs));
        prop_assert_eq!(formats::read_coordinates(&path).unwrap(), micrographs);
    }

    #[test]
    fn cryoppp_returns_every_particle(particles in prop::collection::vec(particle(), 0..6)) {
        let micrograph = MicrographParticles { micrograph: String::new(), particles };
        let (_folder, path) = written("a.csv", |path| cryoppp::write(path, &micrograph));
        prop_assert_eq!(formats::read_coordinates(&path).unwrap(), [micrograph]);
    }

    #[test]
    fn a_box_file_read_and_written_is_equal(
        corners in prop::collection::vec((-1e3..1e5f64, -1000i32..100_000), 0..6), size in 1usize..1000,
    ) {
        let text: String = corners.iter().map(|(x, y)| format!("{x} {y} {size} {size} -3\r\n")).collect();
        let read = eman_box::from_bytes(text.as_bytes(), here()).unwrap();
        for (particle, (x, y)) in read.particles.iter().zip(&corners) {
            prop_assert_eq!((particle.x, particle.y), (x + size as f64 / 2.0, f64::from(*y) + size as f64 / 2.0));
        }
        let (_folder, path) = written("a.box", |path| eman_box::write(path, &read, size));
        prop_assert_eq!(formats::read_coordinates(&path).unwrap(), [read]);
    }

    #[test]
    fn a_star_document_read_and_written_is_equal(lines in prop::collection::vec(prop_oneof![
        Just("data_".to_owned()), Just("data_optics # x".to_owned()), Just("loop_".to_owned()), Just("_a #1".to_owned()),
        Just("_b #2 [text]".to_owned()), Just("_c 'x y' # end".to_owned()), Just("_d".to_owned()), Just(String::new()),
        Just("# comment ".to_owned()), Just("1 2".to_owned()), Just("'it''s' \"a b\" # c".to_owned()), Just("x".to_owned()),
        Just("'a\" ' \"b' \"".to_owned()), Just("'' \"#\"".to_owned()), Just("\tdata_x 7 \r".to_owned()), "[ -~]{0,12}",
    ], 0..14)) {
        let text = format!("data_first\n{}", lines.join("\n"));
        if let Ok(star) = star::from_bytes(text.as_bytes(), here()) {
            let again = star.to_text(here()).unwrap();
            prop_assert_eq!(star::from_bytes(again.as_bytes(), here()).unwrap(), star, "{}", again);
        }
    }

    #[test]
    fn any_text_is_an_error_or_coordinates(text in prop_oneof![
        "(data_a\n|loop_\n|_rlnCoordinateX\n|_rlnCoordinateY\n|[0-9 .]{1,6}\n|'|\"| |#|\n){0,20}",
        "(x_coord|y_coord|,|\t|\n|\r\n|\"|[0-9]){0,20}", "X-Coordinate,Y-Coordinate\n([0-9,\"]{0,9}\n){0,5}",
        "([0-9. -]{0,12}\n){0,6}", "\\PC*",
    ]) {
        let _ = formats::coordinates_from_bytes(text.as_bytes(), here());
        let _ = topaz::from_bytes(text.as_bytes(), here());
        let _ = cryoppp::from_bytes(text.as_bytes(), here());
        let _ = eman_box::from_bytes(text.as_bytes(), here());
        let _ = star::from_bytes(text.as_bytes(), here());
    }
}

const RELION_31: &str = "\
# version 30001

data_optics

loop_\x20
_rlnOpticsGroupName #1\x20
_rlnOpticsGroup #2 [Number]
opticsGroup1            1

# version 30001

data_particles

_rlnSomething   'a value' # said
_rlnEmpty

loop_
_rlnCoordinateX #1
_rlnCoordinateY #2
_rlnAutopickFigureOfMerit #3
_rlnMicrographName #4
  10.5 20 0.75 \"my mic.mrc\"

# between
  11.5 21 -999.000000 b.mrc # by hand
  12 22 0.5 \"my mic.mrc\"
";

#[test]
fn a_relion_file_with_optics_is_a_document_and_coordinates() {
    for text in [RELION_31.to_owned(), RELION_31.replace('\n', "\r\n"), format!("\u{feff}{RELION_31}")] {
        let star = star::from_bytes(text.as_bytes(), here()).unwrap();
        assert_eq!(star.comments, [" version 30001"]);
        assert_eq!(
            star.blocks.iter().map(|block| block.name.as_str()).collect::<Vec<_>>(),
            ["optics", "particles"]
        );
        assert_eq!(star.blocks[1].item("_rlnSomething"), Some("a value"));
        assert_eq!(star.blocks[1].item("_rlnEmpty"), Some(""));
        assert_eq!(star.blocks[1].item("_rlnNot"), None);
        let optics = star.blocks[0].loops().next().unwrap();
        assert_eq!(optics.columns[1].comment.as_deref(), Some("2 [Number]"));
        let particles = star.blocks[1].loops().next().unwrap();
        assert_eq!(particles.comments, [(1, " between".to_owned())]);
        assert_eq!(particles.rows[1].comment.as_deref(), Some(" by hand"));

        let particle = |x, y, score| Particle { x, y, diameter: None, score };
        let expected = [
            MicrographParticles {
                micrograph: "my mic.mrc".into(),
                particles: vec![particle(10.5, 20.0, Some(0.75)), particle(12.0, 22.0, Some(0.5))],
            },
            MicrographParticles { micrograph: "b.mrc".into(), particles: vec![particle(11.5, 21.0, None)] },
        ];
        assert_eq!(formats::coordinates_from_bytes(text.as_bytes(), here()).unwrap(), expected);
        let again = star.to_text(here()).unwrap();
        assert_eq!(star::from_bytes(again.as_bytes(), here()).unwrap(), star);
    }
}

#[test]
fn our_star_files_look_like_relion_files() {
    let micrograph = MicrographParticles {
        micrograph: "a.mrc".into(),
        particles: vec![
            Particle { x: 1.5, y: 2.0, diameter: Some(30.0), score: Some(0.875) },
            Particle { x: 3.0, y: 4.0, diameter: None, score: None },
        ],
    };
    let text = Star::from_coordinates(&[micrograph], here()).unwrap().to_text(here()).unwrap();
    assert_eq!(
        text,
        "# version 30001\n\ndata_particles\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n\
         _rlnAutopickFigureOfMerit #4\n_trimtabDiameterPixels #5\n\
         a.mrc\t1.5\t2\t0.875\t30\na.mrc\t3\t4\t-999\t.\n\n"
    );
}

#[test]
fn topaz_tables_with_and_without_names_are_read() {
    let read = |text: &str| formats::coordinates_from_bytes(text.as_bytes(), here()).unwrap();
    let particle = |x, y, diameter, score| Particle { x, y, diameter, score };
    assert_eq!(
        read("image_name\tx_coord\ty_coord\tscore\r\nb\t1\t2\t-3.5\r\n\r\na\t3\t4\t1\r\nb\t5\t6\t0\r\n"),
        [
            MicrographParticles {
                micrograph: "b".into(),
                particles: vec![particle(1.0, 2.0, None, Some(-3.5)), particle(5.0, 6.0, None, Some(0.0))],
            },
            MicrographParticles {
                micrograph: "a".into(),
                particles: vec![particle(3.0, 4.0, None, Some(1.0))]
            },
        ]
    );
    assert_eq!(
        read("y_coord,x_coord,diameter\n1,2.5,30\n"),
        [MicrographParticles {
            micrograph: "".into(),
            particles: vec![particle(2.5, 1.0, Some(30.0), None)]
        }]
    );
}

#[test]
fn box_corners_become_centres() {
    let read = formats::coordinates_from_bytes(b"10 20 100 80\n-50\t-50\t100\t100\t-3\n", here()).unwrap();
    let centres: Vec<_> = read[0].particles.iter().map(|p| (p.x, p.y, p.diameter)).collect();
    assert_eq!(centres, [(60.0, 60.0, None), (0.0, 0.0, None)]);
    assert_eq!(formats::coordinates_from_bytes(b"", Path::new("a.box")).unwrap()[0].particles, []);
}

#[track_caller]
fn check_error(text: &str, expected: &str) {
    let error = formats::coordinates_from_bytes(text.as_bytes(), here()).unwrap_err();
    assert_eq!(error.to_string(), expected);
}

#[test]
fn wrong_coordinates_are_errors_with_their_line() {
    check_error(
        "data_a\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n1 2\n# note\n1 x\n",
        "file:8: not a valid STAR file: _rlnCoordinateY is `x`; a finite number is expected",
    );
    check_error(
        "data_a\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n1 2 3\n",
        "file:5: not a valid STAR file: 3 values in a table of 2 columns",
    );
    check_error(
        "data_a\nloop_\n_a\n'x y\n",
        "file:4: not a valid STAR file: a ' that is not closed on its line",
    );
    check_error("data_a\n5\n", "file:2: not a valid STAR file: the value `5` outside a table");
    check_error("data_a\nloop_\n", "file: not a valid STAR file: a table without columns in block `a`");
    check_error("data_a\nsave_x\n", "file:2: not a valid STAR file: `save_x`, which RELION does not use");
    check_error(
        "data_images\nloop_\n_rlnVoltage #1\n_rlnMicrographName #2\n300 a.mrc\n",
        "file: no coordinates (_rlnCoordinateX and _rlnCoordinateY in one table); \
         the file has data_images with _rlnVoltage, _rlnMicrographName",
    );
    check_error(
        "image_name\tx_coord\ty_coord\n\n\na\t1\t2\na\t3\n",
        "file:5: not a valid Topaz file: 2 columns; 3 are expected",
    );
    check_error(
        "x_coord,y_coord\r\n1,2\r\n\r\n1,nan\r\n",
        "file:4: not a valid Topaz file: y_coord is `nan`; a finite number is expected",
    );
    check_error(
        "X-Coordinate,Y-Coordinate,Diameter\n1,2,-3\n",
        "file:2: not a valid CryoPPP CSV file: Diameter is `-3`; it must be greater than 0",
    );
    check_error(
        "1 2 3 4\n5 6 7\n",
        "file:2: not a valid EMAN box file: 3 columns; x, y, width and height are expected",
    );
    check_error(
        "1 2 3 4\n\n5 6 0 7\n",
        "file:3: not a valid EMAN box file: the width (column 3) is `0`; it must be greater than 0",
    );
    let error = formats::coordinates_from_bytes(b"data_a\n_b \xFF\n", here()).unwrap_err();
    assert_eq!(error.to_string(), "file:2: not a valid coordinates file: the text is not UTF-8");
}

#[test]
fn what_a_format_cannot_hold_is_not_written() {
    let with = |particle| [MicrographParticles { micrograph: "a".into(), particles: vec![particle] }];
    let plain = Particle { x: 1.0, y: 2.0, diameter: None, score: None };
    let path = Path::new("never/written");
    for particle in [Particle { x: f64::NAN, ..plain }, Particle { diameter: Some(0.0), ..plain }] {
        assert!(
            star::write_coordinates(path, &with(particle))
                .unwrap_err()
                .to_string()
                .contains("particle 1 cannot")
        );
        assert!(topaz::write(path, &with(particle)).unwrap_err().to_string().contains("particle 1 cannot"));
        assert!(
            cryoppp::write(path, &with(particle)[0]).unwrap_err().to_string().contains("particle 1 cannot")
        );
        assert!(
            eman_box::write(path, &with(particle)[0], 10)
                .unwrap_err()
                .to_string()
                .contains("particle 1 cannot")
        );
    }
    assert!(eman_box::write(path, &with(plain)[0], 0).unwrap_err().to_string().contains("a box of 0 pixels"));
    let placeholder = Particle { score: Some(-999.0), ..plain };
    assert!(star::write_coordinates(path, &with(placeholder)).unwrap_err().to_string().contains("-999"));
    let name = [MicrographParticles { micrograph: "a' b\" c".into(), particles: vec![plain] }];
    assert!(
        star::write_coordinates(path, &name)
            .unwrap_err()
            .to_string()
            .contains("cannot be written to a STAR file")
    );
}

#[test]
fn a_truncated_coordinate_file_never_panics() {
    let texts = [
        RELION_31.to_owned(),
        "image_name\tx_coord\ty_coord\tscore\n\"a b\"\t1\t2\t-3.5\n".to_owned(),
        "X-Coordinate,Y-Coordinate,Diameter,Angle\n1,2,3,4\n".to_owned(),
        "10 20 100 80\n-50 -50 100 100 -3\n".to_owned(),
    ];
    for text in texts {
        for length in 0..=text.len() {
            let _ = formats::coordinates_from_bytes(&text.as_bytes()[..length], here());
            let mut bytes = text.clone().into_bytes();
            for changed in [0, 0xFF, b'\n', b'"', b'\'', b' '] {
                if let Some(byte) = bytes.get_mut(length) {
                    *byte = changed;
                }
                let _ = formats::coordinates_from_bytes(&bytes, here());
            }
        }
    }
}
