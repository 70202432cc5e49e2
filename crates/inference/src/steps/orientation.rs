//! How a camera was held: EXIF's orientation, read and undone.

/// One of EXIF's eight orientations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orientation {
    /// Rows become columns, before the mirrors.
    pub transpose: bool,
    /// Left becomes right.
    pub mirror_x: bool,
    /// Top becomes bottom.
    pub mirror_y: bool,
}

impl Orientation {
    /// Reads the tag `Orientation` of EXIF data that begin with a TIFF header; what can't be read is upright.
    pub fn read(exif: &[u8]) -> Orientation {
        let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
        tag(exif).map(Orientation::numbered).unwrap_or_default()
    }

    fn numbered(number: u16) -> Orientation {
        let (transpose, mirror_x, mirror_y) = match number {
            2 => (false, true, false),
            3 => (false, true, true),
            4 => (false, false, true),
            5 => (true, false, false),
            6 => (true, true, false),
            7 => (true, true, true),
            8 => (true, false, true),
            _ => (false, false, false),
        };
        Orientation { transpose, mirror_x, mirror_y }
    }

    /// Width and height as people see them, or back.
    pub fn swap<T>(self, (width, height): (T, T)) -> (T, T) {
        if self.transpose { (height, width) } else { (width, height) }
    }

    /// Turns pixels of `channels` bytes and rows of `width` pixels upright.
    pub fn apply(self, pixels: Vec<u8>, width: usize, channels: usize) -> Vec<u8> {
        if self == Orientation::default() || width == 0 || channels == 0 {
            return pixels;
        }
        let rows: Vec<&[u8]> = pixels.chunks_exact(width * channels).collect();
        let (columns, lines) = self.swap((width, rows.len()));
        let mut upright = Vec::with_capacity(pixels.len());
        for line in 0..lines {
            for column in 0..columns {
                let column = if self.mirror_x { columns - 1 - column } else { column };
                let line = if self.mirror_y { lines - 1 - line } else { line };
                let (x, y) = self.swap((column, line));
                let at = x * channels..(x + 1) * channels;
                upright.extend_from_slice(rows.get(y).and_then(|row| row.get(at)).unwrap_or_default());
            }
        }
        upright
    }
}

const ORIENTATION: u16 = 0x0112;

fn tag(tiff: &[u8]) -> Option<u16> {
    let big = match tiff.get(..4)? {
        b"MM\0*" => true,
        b"II*\0" => false,
        _ => return None,
    };
    let short = |at: usize| {
        let bytes = *tiff.get(at..)?.first_chunk::<2>()?;
        Some(if big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    };
    let bytes = *tiff.get(4..)?.first_chunk::<4>()?;
    let first = if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
    let directory = usize::try_from(first).ok().filter(|&at| at < tiff.len())?;
    let entries = (0..usize::from(short(directory)?)).map(|index| directory + 2 + index * 12);
    let entry = entries.into_iter().find(|&at| short(at) == Some(ORIENTATION))?;
    short(entry + 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exif(number: u8, big: bool) -> Vec<u8> {
        let mut tiff = if big {
            b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec()
        } else {
            b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec()
        };
        tiff.extend([number, 0, 0, 0]);
        tiff
    }

    #[test]
    fn a_letter_is_upright_whatever_way_the_camera_was_held() {
        // An L of 2 x 3 pixels as each orientation stores it.
        let upright = b"#.#.##";
        let stored: [(u8, &[u8], usize); 8] = [
            (1, b"#.#.##", 2),
            (2, b".#.###", 2),
            (3, b"##.#.#", 2),
            (4, b"###.#.", 2),
            (5, b"###..#", 3),
            (6, b"..####", 3),
            (7, b"#..###", 3),
            (8, b"####..", 3),
        ];
        for (number, pixels, width) in stored {
            for big in [false, true] {
                let orientation = Orientation::read(&exif(number, big));
                let turned = orientation.apply(pixels.to_vec(), width, 1);
                let shown = String::from_utf8(turned.clone()).unwrap();
                assert_eq!(turned, upright, "orientation {number} gave {shown}");
                assert_eq!(orientation.swap((width, 6 / width)), (2, 3));
            }
        }
    }

    #[test]
    fn what_is_no_exif_is_upright() {
        let whole = exif(6, false);
        for length in 0..whole.len() - 4 {
            assert_eq!(Orientation::read(&whole[..length]), Orientation::default());
        }
        assert_eq!(Orientation::read(&exif(9, true)), Orientation::default());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            let with_header = [b"II*\0", bytes.as_slice()].concat();
            let _ = (Orientation::read(&bytes), Orientation::read(&with_header));
        }
    }
}
