"""The "Why?" switch of the upload panel: the image and its faces change, a legend says what the colors mean."""
import re

import pytest
from panels import accessible
from playwright.sync_api import expect
from test_app import visit


def shown(locator) -> str: return locator.evaluate('o => o.currentSrc')


def brightness(image) -> list:
    "The mean red, green and blue of an image on the page."
    return image.evaluate("""o => {
        const c = Object.assign(document.createElement("canvas"), {width: 40, height: 40}), d = c.getContext("2d");
        d.drawImage(o, 0, 0, 40, 40);
        const a = d.getImageData(0, 0, 40, 40).data;
        return [0, 1, 2].map(k => a.filter((_, i) => i % 4 === k).reduce((x, y) => x + y)/1600);
    }""")


@pytest.fixture
def card(page, app, visitors):
    visit(page, app.address)
    page.locator('.fer-upload input[type=file]').set_input_files(visitors)
    card = page.locator(f'.fer-card[aria-label="{visitors.name}"]')
    expect(card.locator('li.fer-face'), 'there are not two faces').to_have_count(2)
    yield card
    page.goto('about:blank')


def test_why(page, card, visitors, look):
    "One click shows the evidence, the next one the image as it came; the answers stay."
    why, view, faces = card.locator('[data-do=why]'), card.locator('.fer-photo img'), card.locator('li.fer-face img')
    expect(why, 'the button does not say its state').to_have_attribute('aria-pressed', 'false')
    expect(card.locator('.fer-why'), 'there is a legend of nothing').to_have_count(0)
    before, verdicts = shown(view), card.locator('.fer-verdict').all_inner_texts()
    plain = [brightness(o) for o in faces.all()]
    why.click()
    expect(why, 'the button does not say its state').to_have_attribute('aria-pressed', 'true')
    lines = card.locator('.fer-why li')
    expect(lines, 'not every face has a legend').to_have_count(2)
    for i, line in enumerate(lines.all(), 1):
        said = rf'face {i}:\s+for [a-z]+ \(strongest \d+\.\d\)\s+for [a-z]+ \(strongest \d+\.\d\)'
        expect(line, 'the legend does not say what the colors mean').to_have_text(re.compile(said))
    page.wait_for_function('([o, src]) => o.currentSrc !== src && o.complete', arg=[view.element_handle(), before])
    expect(view, 'the image has another size').to_have_js_property('naturalWidth', 800)
    assert verdicts == card.locator('.fer-verdict').all_inner_texts(), 'the explanation changed the answers'
    colored = [brightness(o) for o in card.locator('li.fer-face img').all()]
    apart = max(abs(a[0] - a[2]) for a in colored)
    assert apart > 10 > max(abs(a[0] - a[2]) for a in plain), f'the faces have no shades: {plain}, {colored}'
    said = page.locator('.fer-upload .fer-said')
    expect(said, 'a screen reader does not hear it').to_contain_text(f'{visitors.name}, face 1: orange is for')
    look('app-why', card)
    accessible(page)
    page.emulate_media(color_scheme='dark')
    look('app-why-dark', card)
    accessible(page)
    page.emulate_media(color_scheme='light')
    why.click()
    expect(card.locator('.fer-why'), 'the legend stays').to_have_count(0)
    expect(why, 'the button does not say its state').to_have_attribute('aria-pressed', 'false')


def test_why_by_keyboard_and_with_another_prior(page, card, look):
    "The button keeps the focus; expecting other faces draws the evidence again."
    page.set_viewport_size(dict(width=390, height=844))
    why = card.locator('[data-do=why]')
    why.focus()
    page.keyboard.press('Enter')
    expect(card.locator('.fer-why li')).to_have_count(2)
    expect(card.locator('[data-do=why]'), 'the focus is lost').to_be_focused()
    first = card.locator('.fer-why').inner_text()
    look('app-why-390', card)
    wide = page.evaluate('document.documentElement.scrollWidth')
    assert wide <= 390, f'the page is {wide} pixels wide'
    page.locator('.fer-options summary').click()
    prior = page.locator('[data-set=prior]')
    other = [o for o in prior.locator('option').all_inner_texts() if o != prior.input_value()]
    prior.select_option(other[-1])
    expect(card.locator('.fer-why'), 'the evidence is that of another prior').not_to_have_text(first)
    expect(card.locator('.fer-why li')).to_have_count(2)
