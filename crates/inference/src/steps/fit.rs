//! Where a picture lies in what a model sees, and the way back.

use types::{Align, ImageInput, Resize};

/// How a model sees a picture: takes places in the model's pixels back to the picture's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frame {
    /// Width and height of what the model sees.
    model: (f64, f64),
    /// Width and height of the picture as people see it.
    picture: (f64, f64),
    /// The part of the picture that the model sees.
    seen: Area,
    /// Where in what the model sees that part lies.
    content: Area,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Area {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

/// How a picture is fitted in, in whole pixels of the model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    pub frame: Frame,
    pub left: usize,
    pub top: usize,
    pub width: usize,
    pub height: usize,
}

impl Frame {
    /// A picture that the model sees as it is.
    pub fn of(width: usize, height: usize) -> Frame {
        let size = (width as f64, height as f64);
        let whole = Area { left: 0.0, top: 0.0, width: size.0, height: size.1 };
        Frame { model: size, picture: size, seen: whole, content: whole }
    }

    /// Width and height of what the model sees, in pixels.
    pub fn model_size(&self) -> (f64, f64) {
        self.model
    }

    /// Width and height of the picture, in pixels.
    pub fn picture_size(&self) -> (f64, f64) {
        self.picture
    }

    /// A place in the model's pixels as a place in the picture's. It may lie outside.
    pub fn to_picture(&self, x: f64, y: f64) -> (f64, f64) {
        let (seen, content) = (&self.seen, &self.content);
        let x = seen.left + (x - content.left) * seen.width / content.width;
        let y = seen.top + (y - content.top) * seen.height / content.height;
        (x, y)
    }

    /// Left, top, width and height of the part of the picture that the model sees, if the picture is stored with
    /// width and height exchanged or not. Both ways it is in the middle.
    pub fn seen(&self, exchanged: bool) -> [f64; 4] {
        let Area { left, top, width, height } = self.seen;
        if exchanged { [top, left, height, width] } else { [left, top, width, height] }
    }
}

impl Fit {
    /// Fits a picture of some width and height into another; none of the four is 0.
    pub fn new(declared: &ImageInput, picture: (usize, usize), model: (usize, usize)) -> Fit {
        let (picture_width, picture_height) = (picture.0 as f64, picture.1 as f64);
        let (model_width, model_height) = (model.0 as f64, model.1 as f64);
        let (across, down) = (model_width / picture_width, model_height / picture_height);
        let mut seen = Area { left: 0.0, top: 0.0, width: picture_width, height: picture_height };
        let (mut left, mut top, (mut width, mut height)) = (0, 0, model);
        match declared.resize {
            Resize::Stretch => {}
            Resize::Letterbox => {
                let scale = across.min(down);
                let scaled = |side: f64, most: usize| ((side * scale).round() as usize).clamp(1, most);
                (width, height) = (scaled(picture_width, model.0), scaled(picture_height, model.1));
                if declared.align == Align::Center {
                    (left, top) = ((model.0 - width) / 2, (model.1 - height) / 2);
                }
            }
            Resize::Crop => {
                let scale = across.max(down) / declared.crop_fraction.clamp(0.01, 1.0);
                seen.width = (model_width / scale).min(picture_width);
                seen.height = (model_height / scale).min(picture_height);
                seen.left = (picture_width - seen.width) / 2.0;
                seen.top = (picture_height - seen.height) / 2.0;
            }
        }
        let content = Area { left: left as f64, top: top as f64, width: width as f64, height: height as f64 };
        let frame = Frame {
            model: (model_width, model_height),
            picture: (picture_width, picture_height),
            seen,
            content,
        };
        Fit { frame, left, top, width, height }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(resize: Resize, align: Align, picture: (usize, usize)) -> Fit {
        let declared = ImageInput { resize, align, crop_fraction: 0.5, ..ImageInput::default() };
        Fit::new(&declared, picture, (320, 320))
    }

    #[test]
    fn a_letterbox_keeps_proportions_and_lies_where_it_is_told() {
        let middle = fit(Resize::Letterbox, Align::Center, (640, 480));
        assert_eq!((middle.left, middle.top, middle.width, middle.height), (0, 40, 320, 240));
        assert_eq!(middle.frame.to_picture(0.0, 40.0), (0.0, 0.0));
        assert_eq!(middle.frame.to_picture(320.0, 280.0), (640.0, 480.0));
        let corner = fit(Resize::Letterbox, Align::TopLeft, (480, 640));
        assert_eq!((corner.left, corner.top, corner.width, corner.height), (0, 0, 240, 320));
        assert_eq!(corner.frame.to_picture(240.0, 320.0), (480.0, 640.0));
    }

    #[test]
    fn a_crop_takes_the_middle_and_leads_back_there() {
        let crop = fit(Resize::Crop, Align::Center, (640, 480));
        assert_eq!((crop.left, crop.top, crop.width, crop.height), (0, 0, 320, 320));
        assert_eq!(crop.frame.seen(false), [200.0, 120.0, 240.0, 240.0]);
        assert_eq!(crop.frame.seen(true), [120.0, 200.0, 240.0, 240.0]);
        assert_eq!(crop.frame.to_picture(160.0, 160.0), (320.0, 240.0));
    }

    #[test]
    fn extreme_proportions_leave_a_pixel() {
        let line = fit(Resize::Letterbox, Align::Center, (50_000, 1));
        assert_eq!((line.width, line.height), (320, 1));
    }
}
