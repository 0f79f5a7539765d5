"""Tables of the words that give a script its structure: headers, units, labels, transitions, a chat model's phrases.

A word of another language belongs in a table here; nothing else has to change.
"""

from __future__ import annotations

import re

# Numbers in front of texts that are at least this far apart are video frames, else they count the shots.
LEAST_FRAMES = 8

# Full-width forms and the brackets of East Asian text as ASCII, one character for one.
FOLD = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {
    ord(wide): ord(plain) for wide, plain in zip("\u3000【】〔〕〖〗「」『』〜、", " [][][][][]~,", strict=True)
}


def fold(text: str) -> str:
    """Returns `text` with full-width characters as ASCII; every offset stays."""
    return text.translate(FOLD)


def _any_of(words: str, separator: str = " ") -> str:
    """A pattern of any of the words, longest first."""
    return "|".join(re.escape(word) for word in sorted(words.split(separator), key=len, reverse=True))


UNITS = {
    word: line.split(":")[0]
    for line in """\
s: s sec secs second seconds 秒 秒钟 秒鐘 秒間 秒间 초 초간 sek sekunde sekunden seg segs segundo segundos seconde
s: secondes secondi secondo с сек секунд секунда секунды
min: min mins minute minutes 分 分钟 分鐘 分間 분 minuten minuto minutos мин минута минуты минут
f: f frame frames 帧 幀 フレーム コマ 프레임 fotograma fotogramas кадра кадров
blocks: b block blocks chunk chunks 块 塊 ブロック 블록
""".splitlines()
    for word in line.split(":")[1].split()
}

# Words that start a shot if a number follows. A number alone is enough only for the first four.
ENGLISH = "shot scene clip segment"
NUMBERED = (
    f"{ENGLISH} s cut take panel part beat act sequence seq section chapter prompt sc sh "
    "szene einstellung aufnahme schnitt plano escena toma corte secuencia plan scène scene séquence prise cena tomada "
    "scena inquadratura ripresa scène кадр сцена план дубль scène sahne ujęcie opname cảnh adegan ฉาก مشهد لقطة दृश्य शॉट"
)
CJK = "镜头 鏡頭 分镜 分鏡 场景 場景 镜 鏡 镜号 片段 画面 シーン カット ショット 場面 장면 샷 컷 씬 숏"
ORDINAL = "镜头 鏡頭 分镜 分鏡 场景 場景 镜 鏡 场 場 幕 段 シーン カット ショット 場面 장면 컷 샷"
# "First shot:", "第 N" has its own pattern.
NTH = (
    "first second third fourth fifth sixth seventh eighth ninth tenth final last première deuxième troisième dernière "
    "erste zweite dritte vierte letzte primera segunda tercera última primeira terceira prima seconda terza ultima "
    "первый второй третий первая вторая третья последний последняя 첫 두 세 네 다섯 마지막"
)
# A colon makes one of these a header without a number.
ALONE = f"{ENGLISH} 镜头 分镜 场景 シーン カット ショット 장면"
NUMBER = r"[0-9]+[a-z]?"
# A number in letters stands apart: "Scene II", "Shot one", "Shot B".
LETTERS = r"[ivx]{1,5}|one|two|three|four|five|six|seven|eight|nine|ten|[一二三四五六七八九十]{1,3}|[a-z](?!['’])"
COUNT = r"(?:\s{0,9}(?:/|of|von|de|из)\s{0,9}[0-9]{1,4})?"
WORD = (
    rf"(?:(?P<word>{_any_of(NUMBERED)})s?\.?"
    rf"(?:[\s_-]{{0,99}}(?:#|no\.?|nr\.?|n°|№|(?P<open>\[))?\s{{0,9}}(?P<number>{NUMBER})(?(open)\])"
    rf"|[\s_]{{1,99}}(?P<letter_number>{LETTERS}))"
    rf"{COUNT}(?!\w)"
    rf"|(?P<cjk>{_any_of(CJK)})\s{{0,9}}(?:#|-)?\s{{0,9}}(?P<cjk_number>[0-9]+|[一二三四五六七八九十]{{1,3}}|[①-⑳])"
    rf"|(?P<nth_number>{_any_of(NTH)})\s{{0,9}}(?:번째\s{{0,9}})?"
    rf"(?P<nth>{_any_of(f'{NUMBERED} {CJK}')})(?=\s{{0,9}}[:(\[])"
    rf"|(?P<counted_number>[0-9]{{1,4}})\s{{0,9}}(?P<counted>{_any_of(CJK)})目"
    rf"|第\s{{0,9}}(?P<ordinal_number>[0-9]+|[一二三四五六七八九十]{{1,3}})\s{{0,9}}[个個]?(?P<ordinal>{_any_of(ORDINAL)})"
    rf"|(?P<hash>[sc]?)#\s?(?P<hash_number>[0-9]{{1,4}})(?!\w))"
)
# What is made from an image, as in "Image 1 -> Video prompt (5s): …", "Video prompt 1:" and "Scene 1 - video prompt:".
IMAGES = r"(?:(?:start|end|first|last)\s)?(?:image|img|picture|photo|frame|keyframe|图片|图像|图|画像|이미지)[\s#]{0,9}"
PROMPT = r"\s{0,9}(?:prompt|提示词|プロンプト|프롬프트)"
VIDEO = r"(?:(?:image|text)[\s-]to[\s-]video|video|i2v|t2v|img2vid|motion|animation|visual|视频|動画|영상|비디오)"
FROM_IMAGE = re.compile(
    rf"(?:(?P<image>{IMAGES}(?P<image_number>[0-9]{{1,4}}))\s{{0,9}}(?:[-=–—]{{1,2}}>|[→⇒➔➜➡>]\ufe0f?|to\s)\s{{0,9}}"
    rf"(?:{VIDEO}(?:{PROMPT})?(?:\s{{0,9}}#?[0-9]{{1,4}})?|{IMAGES}[0-9]{{1,4}})"
    rf"|{VIDEO}{PROMPT}\s{{0,9}}#?(?P<prompt_number>[0-9]{{1,4}})"
    rf"|(?:{VIDEO}\s)?prompt\s(?:for|from)\s(?P<given>{IMAGES}(?P<given_number>[0-9]{{1,4}})))(?!\w)\s*",
    re.IGNORECASE,
)
SAYS_PROMPT = rf"(?:\s{{0,9}}[-–—|,]?\s{{0,9}}{VIDEO}?{PROMPT}(?=\s{{0,9}}(?:[:(\[]|$)))?"
HEADER_WORD = re.compile(WORD + SAYS_PROMPT + r"\s*", re.IGNORECASE)
NEXT_WORD = re.compile(r"\s{0,9}[,/.·–—|-]?\s{0,9}" + WORD + r"\s*", re.IGNORECASE)
WORD_ALONE = re.compile(rf"(?:{_any_of(ALONE)})(?![\w-])\s*", re.IGNORECASE)
SLUGLINE = re.compile(r"\.?(?:(?:INT|EXT|EST)\.?\s?/\s?(?:INT|EXT)|INT|EXT|EST|I/E)[.]\s*\S|I/E\s+\S", re.IGNORECASE)
# What may stand before a header: zero-width characters, arrows, signs and emoji.
SIGN = r"[\ufe0f\u20e3\u2190-\u2bff\U0001f000-\U0001faff]"
SIGNS = re.compile(rf"[\s\u200b-\u200f\u2060\ufeff{SIGN[1:]}*")

# Label lines, as in "Duration: 4s". The other labels stay in the prompt, and their lines belong to the shot above.
LABELS = {
    word.strip(): line.split(":")[0]
    for line in """\
text: prompt, video prompt, image prompt, visual prompt, positive prompt, positive, visual, visuals, description
text: shot description, scene description, visual description, action, text, caption, image, video, content, 画面
text: 画面描述, 画面内容, 提示词, 描述, 内容, 正向提示词, プロンプト, 映像, 描写, 説明, 프롬프트, 화면, 설명
text: beschreibung, bild, descripción, descrição, descrizione, visuel, visivo, vídeo, описание, промпт, видео
time: duration, length, time, timing, timecode, time range, timestamp, dur, seconds, 时长, 持续时间, 时间, 時長
time: 長さ, 尺, 時間, 秒数, 길이, 시간, dauer, länge, zeit, duración, tiempo, durée, temps, duração, длительность
time: время, durata, tempo
negative: negative, negative prompt, neg, avoid, neg prompt, 负面提示词, 反向提示词, 负向提示词, 負面提示詞
negative: ネガティブ, ネガティブプロンプト, 네거티브, 네거티브 프롬프트, negativer prompt, prompt negativo
negative: prompt négatif, негативный промпт
style: style, visual style, global style, overall style, 风格, 風格, スタイル, 스타일, stil, estilo, стиль
film: total, total duration, total length, total runtime, total time, runtime, aspect ratio, fps, frame rate
film: resolution, 总时长, 總時長
aside: title, genre, logline, author, id, index, number, shot number, shot id, scene number, 标题, 片名, タイトル
aside: 제목, titel, título, titre, название, credit, draft date, contact, source
other: camera, camera movement, camera angle, camera motion, lighting, light, mood, audio, sound, sound effects
other: music, sfx, vfx, dialogue, dialog, voiceover, narration, setting, location, subject, character, characters
other: motion, movement, transition, angle, shot type, lens, framing, composition, colors, colours, color
other: background, environment, atmosphere, notes, 镜头运动, 运镜, 景别, 光线, 灯光, 音效, 音乐, 对白, 台词, 旁白
other: 氛围, 角度, カメラ, カメラワーク, 照明, 音, 音楽, セリフ, 雰囲気, 카메라, 조명, 음악, 대사, kamera, licht
other: ton, musik, cámara, iluminación, sonido, caméra, éclairage, lumière, son, камера, свет, звук
other: câmera, áudio, som, suono, luce
start: start, start time, from, begin, in, at
end: end, end time, to, out
seed: seed
frames: frames, num frames, frame count, duration frames, length frames
frame: frame, keyframe, start frame
""".splitlines()
    for word in line.split(":")[1].split(",")
}
TIME_LABELS = "|".join(re.escape(label) for label, role in LABELS.items() if role == "time" and label not in UNITS)
PARAMETERS = re.compile(r"(?:steps|sampler|cfg scale|seed)\s*:\s*[^,:]+,\s*\w[\w ]*:", re.IGNORECASE)

TRANSITION = re.compile(
    r"(?:>\s*)?(?:(?:(?:smash|match|jump|hard|quick|flash)\s+)?cut(?:\s+back)?\s+to(?:\s+black)?"
    r"|fade(?:s)?\s+(?:in|out|to\s+\w+|from\s+\w+)|(?:cross\s?)?dissolve(?:s)?(?:\s+to)?|cross\s?fade(?:\s+to)?|wipe\s+to"
    r"|iris\s+(?:in|out)|the\s+end|切至|切到|切换到|淡入|淡出|转场|schnitt\s+auf|corte\s+a|fundido\s+a\s+negro)"
    r"\s*(?:[:.]\s*|$)",
    re.IGNORECASE,
)

# How a chat model begins what it writes around a shot list.
CHAT = re.compile(
    r"(?:here(?:'s|’s| is| are| you go)\b|(?:sure|certainly|absolutely|of course|okay|ok|great|got it)[,!.—-]|"
    r"below (?:is|are)\b|i(?:'ve|’ve| have| can| hope)\b|let me know\b|would you like\b|do you want\b|"
    r"want me to\b|feel free\b|hope (?:this|that)\b|if you(?:'d|’d| would| want| need)\b|"
    r"you can (?:also|adjust|change)\b|just let me\b|enjoy[!.]|happy to\b|need (?:any|more)\b|"
    r"these (?:shots|prompts)\b|以下是|好的|当然|這是|这是|希望|如果(?:您|你|需要)|需要我|您(?:想|需要|希望)|"
    r"你(?:想|需要|希望)|はい[、,]|以下(?:は|に|が)|こちら|もちろん|ご希望|いかが|다음은|물론|원하시면|"
    r"hier (?:ist|sind)\b|gerne\b|natürlich\b|möchten sie\b|möchtest du\b|voici\b|bien sûr|souhaitez|"
    r"aquí (?:está|tienes)|claro[,!]|por supuesto|¿|вот\b|конечно|хотите\b)",
    re.IGNORECASE,
)
