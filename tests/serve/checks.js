// What can be checked of any view without a person: names, texts for pictures, headings, contrast. Gives the faults.
() => {
  const faults = [];
  const visible = (one) => one.checkVisibility({opacityProperty: true, visibilityProperty: true});
  const named = (one) => one.getAttribute('aria-label') || one.labels?.[0]?.textContent || one.textContent
    || document.getElementById(one.getAttribute('aria-labelledby'))?.textContent || '';
  const what = (one) => one.outerHTML.slice(0, 120);
  for (const one of document.querySelectorAll('input, select, textarea, button, a[href]')) {
    if (visible(one) && !one.closest('[aria-hidden=true]') && !named(one).trim()) faults.push('no name: ' + what(one));
  }
  for (const one of document.querySelectorAll('img')) if (!one.hasAttribute('alt')) faults.push('no alt: ' + what(one));
  for (const one of document.querySelectorAll('svg[role=img]')) if (!named(one)) faults.push('no text: ' + what(one));
  const ids = [...document.querySelectorAll('[id]')].map((one) => one.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push('id twice: ' + id);
  for (const one of document.querySelectorAll('[aria-controls], [aria-describedby], [aria-labelledby]')) {
    for (const name of ['aria-controls', 'aria-describedby', 'aria-labelledby']) {
      for (const id of (one.getAttribute(name) || '').split(' ').filter(Boolean)) {
        if (!document.getElementById(id)) faults.push(name + ' names nothing: ' + what(one));
      }
    }
  }
  const heads = [...document.querySelectorAll('h1, h2, h3, h4')].filter(visible).map((one) => Number(one.tagName[1]));
  if (heads.filter((one) => one === 1).length !== 1) faults.push('h1s: ' + heads);
  heads.forEach((one, at) => { if (at && one > heads[at - 1] + 1) faults.push('a level is left out: ' + heads); });
  if (document.querySelectorAll('main, nav[aria-label], header').length < 3) faults.push('landmarks');

  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = (text) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255]; };
  const mixed = (top, under) => [0, 1, 2].map((at) => top[at] * top[3] + under[at] * (1 - top[3]));
  const light = (colour) => { const [r, g, b] = colour.map((one) => { const s = one / 255;
    return s <= 0.03928 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (one) => { if (!one) return rgba(getComputedStyle(document.documentElement).backgroundColor === 'rgba(0, 0, 0, 0)'
    ? getComputedStyle(document.body).backgroundColor : getComputedStyle(document.documentElement).backgroundColor);
    const own = rgba(getComputedStyle(one).backgroundColor); return own[3] > 0.99 ? own : [...mixed(own, ground(one.parentElement)), 1]; };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !visible(one) || one.closest('svg, .sr, [disabled], noscript, option')) continue;
    const style = getComputedStyle(one);
    const [a, b] = [light(mixed(rgba(style.color), ground(one))), light(ground(one))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    if (contrast < (large ? 3 : 4.5)) faults.push(`contrast ${contrast.toFixed(2)}: ${what(one)}`);
  }
  return [...new Set(faults)];
}
