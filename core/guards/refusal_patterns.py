r"""Regular expressions for refusals in English, used by the `phrases` guard.

Patterns are matched against `uniform` text: lower case, straight quotes, one spelling of each contraction ("cannot",
"can not" and "can't" are all "can't"), single blanks, and a blank at the start. Each pattern starts with a literal
blank, which also lets the regular-expression engine skip from word to word.
"""

from __future__ import annotations

import re

_SPELLINGS = {
    "’": "'", "‘": "'", "ʼ": "'", "´": "'", "`": "'", "“": '"', "”": '"', "*": "", "—": ", ", "–": ", ",
    "cannot": "can't", "can not": "can't", "couldn't": "can't", "could not": "can't", "cant ": "can't ",
    "do not": "don't", "does not": "doesn't", "dont ": "don't ", "will not": "won't", "would not": "won't",
    "wouldn't": "won't", "should not": "shouldn't", "is not": "isn't", "are not": "aren't", " am ": "'m ",
    "it is": "it's", "that is": "that's", "i would ": "i'd ", "i have to ": "i must ", "i need to ": "i must ",
    "i feel compelled to ": "i must ", "i've to ": "i must ",
}  # fmt: skip

_QUOTED = re.compile(r' "[^" ]+ [^"]{1,300}"(?=[ .,!?])')


def uniform(text: str) -> str:
    """Normalize a reply for the patterns; quoted speech inside the text is removed."""
    text = text.lower()
    for variant, form in _SPELLINGS.items():
        if variant in text:
            text = text.replace(variant, form)
    text = " ".join(text.split())
    return " " + (text[:1] + _QUOTED.sub(' "…"', text[1:]) if '"' in text else text)


def plain(text: str) -> str:
    """Normalize a prompt for the patterns: lower case, straight apostrophes, single blanks."""
    return " " + " ".join(text.lower().replace("’", "'").split())


def _any(*pieces: str) -> str:
    return "(?:" + "|".join(pieces) + ")"


def _pattern(*pieces: str) -> re.Pattern[str]:
    return re.compile(" " + _any(*pieces))


# --- inability: "I can't help with that" ------------------------------------------------------------------------------
_FOR_SURE = r"(?:you )?(?:for (?:sure|certain)|exactly|precisely|whether|if|how (?:long|many|much|often))\b"
_HELPING = _any(
    "assist|provid|offer|giv|fulfil|answer|compl|engag|support|creat|generat|writ|shar|discuss|recommend|suggest|"
    "encourag|condon|participat|satisf|accommodat|promot|endors|facilitat|advis|teach|guid|respond|produc|"
    "continu|explain|describ|accept|agree|justify|contribut|disclos|reveal|process|mak|speculat|show|"
    "instruct|proceed|entertain|allow|list|translat|act|pretend|express|prais|follow|address|recreat|draft|role|"
    "talk|speak|perform|reproduc|supply|aid|confirm|fabricat",
    f"(?:say|tell)(?! {_FOR_SURE})", "help(?! but)", "do (?:that|this|so|it)", "go along", "in good",
    "with (?:that|this|your)", "be (?:of|part|a part|involved|used)",
)  # fmt: skip
_MANNER = r"(?:(?:and|or|also|just|simply|really|ever|in good conscience|under any circumstances|\w+ly),? ){0,3}"
_I = _any("i", "we", r"i'm (?:\w+ )?sorry,? (?:but )?i")
_I_AM = r"(?:i|we)(?:'m|'re| feel|'d be) (?:(?:\w+ly|just|also|still|only|sorry,? but) ){0,2}"
_RULES = r"(?:guideline|programming|purpose|polic|principle|value|training|rule|ethic|terms|instruction)"

INABILITY = _pattern(
    rf"{_I} (?:(?:just|also|still|\w+ly),? ){{0,2}}(?:can't|won't|must not|shouldn't) {_MANNER}"
    rf"(?:and (?:won't|must not|shouldn't) )?{_HELPING}",
    r"(?:i|we) (?:can't|won't)(?:[.!,;]|$)",
    rf"{_I} won't be able to {_HELPING}",
    rf"(?:i|we) was (?:unable|not able) to {_HELPING}",
    rf"{_I_AM}(?:unable|not (?:\w+ly )?able) to",
    rf"{_I_AM}not (?:\w+ly )?(?:comfortable|willing|allowed|permitted|authori[sz]ed|programmed|designed|going to|in a "
    rf"position|capable of {_HELPING})",
    rf"{_I_AM}(?:declining|refusing|prohibited|forbidden|not (?:answer|{_HELPING}))",
    r"i don't (?:feel comfortable|think i (?:can|should)|want to (?:help|assist|be)|engage|assist with|help with)",
    r"i don't (?:provide|offer|give|share) (?:\w+ ){0,3}(?:information|instructions|guidance|assistance|advice|help)",
    r"(?:i|we)(?:'ll| will|'d|'m going to)?(?: must| have to| need to| rather| prefer to)?(?: \w+ly)? "
    r"(?:decline|refuse|abstain)\b",
    r"i must (?:\w+ly )?(?:refrain|withhold)\b",
    rf"i(?:'d rather| prefer|'d prefer|'ve been told) not (?:to )?{_HELPING}",
    rf"i don't have (?:the|any) (?:ability|capability|capacity|right|authority) to {_HELPING}",
    r"(?:i|we)(?:'ll|'m going to)?(?: must| will)? (?:have to )?pass on (?:this|that)",
    r"(?:irresponsible|unethical|inappropriate|wrong|illegal) (?:of|for) me to",
    rf"my (?:\w+ ){{0,3}}{_RULES}[^.!?]{{0,40}} (?:prohibit|prevent|forbid|don't (?:allow|permit|let|include)|not to|"
    r"doesn't (?:allow|permit|let|include)|won't (?:allow|permit|let))",
    rf"(?:not|n't) within my (?:\w+ ){{0,3}}{_RULES}",
    r"(?:not|n't) something (?:that )?(?:i|we) (?:can|could|will|am able)",
    r"(?:outside|beyond) (?:of )?(?:what|the scope of what) (?:i|we)(?:'m| can| may| will|'re)",
    r"(?:request|question) (?:is |was |has been )?(?:denied|declined|refused|rejected)",
    rf"(?:goes|is|be|that's|it's) (?:strictly )?against (?:my|our|the|openai's|ethical) (?:\w+ ){{0,3}}{_RULES}",
    r"(?:this|that|your) (?:request|question|prompt|content|topic)[^.!?]{0,60} (?:violates|can't be|goes against)",
    r"(?:can't|unable to|not able to|won't) (?:assist|help) (?:you )?(?:with|in)\b",
    r"(?:sorry|apologies|afraid),? (?:but )?(?:\w+ ){0,3}(?:can't|won't|unable|not able)\b(?! (?:access|find|see))",
    r"(?:an? )?(?:\w+ ){0,3}(?:ai|assistant|language model)\b[^.!?]{0,80}[ ,]i(?:'m| can't| won't)? ?(?:can't|won't|"
    rf"unable to|not able to|not capable of) {_MANNER}{_HELPING}",
    r"i don't have access to[^.!?]{0,60} (?:personal|private) [^.!?]{0,160}.{0,60}(?:privacy|confidential)",
)
"""Refusals in the first person, anywhere in the head."""

NEGATIONS = (
    "can't", "won't", "unable", "not ", "don't", "declin", "refus", "abstain", "shouldn't", "against", "prohibit",
    "prevent", "forbid", "violates", "refrain", "pass on", "for me to", "of me to", "outside", "beyond", "denied",
    "rejected",
)  # fmt: skip
"""Every `INABILITY` match contains one of these: a cheap test before the expensive pattern."""

_APOLOGY = _any(
    r"i'm (?:\w+ ){0,2}sorry", "sorry", r"i (?:\w+ )?apologi[sz]e", "(?:my )?apologies", "unfortunately", "regrettably"
)
CURT = re.compile(
    rf" (?:(?:oh|no|hi|hello|hey),? )?{_APOLOGY}(?:[,.]? (?:but|however|for|as|that|and|any|the|inconvenience))*[,.]?"
    r"(?: (?:but )?(?:as an?(?: \w+){1,4},?)?(?: ?(?:i|i'm|we))?(?: just)?"
    r"(?: (?:can|can't|not|unable|won't|don't|must))*)?[,.]?$"
    r"| (?:(?:absolutely|certainly) not|sorry, no(?: can do)?|no way|no(?:pe)?[,.]? (?:can't|won't|not doing|"
    r"not going to)(?: \w+){0,4})[.!]?$"
    r"| (?:i|we) (?:can't|won't|must decline|refuse)$| (?:i'm|we're) (?:not able|unable|not)(?: to)?$"
    r"| as an? (?:\w+ ){0,4}(?:ai|assistant|model)(?: \w+){0,4},? i(?: (?:can't|don't|must)|'m (?:not|unable).{0,12})?$"
)
"""A whole reply of a few words: curt, or cut off in the first words of a refusal."""

# --- crisis: sympathy and somebody to turn to -------------------------------------------------------------------------
CRISIS = _pattern(
    r"i'm (?:\w+ ){0,2}(?:sorry|concerned|worried)[^.!?]{0,40} (?:feel|going through|hear|struggl|in pain|hard time)",
    r"i'm (?:\w+ )?(?:concerned|worried) (?:about|for|by|that)",
    r"you(?:'re| are) not alone",
    r"you don't have to (?:go|face|deal)",
    r"your life (?:matters|has value)",
    r"(?:sounds|seems) like you(?:'re| are)[^.!?]{0,40} (?:difficult|hard|pain|struggl|distress)",
    r"if you(?:'re| are)[^.!?]{0,60} (?:suicid|self-harm|harming|hurting|in crisis|struggling|in danger)",
)
HELP_LINE = _pattern(
    "help ?-?line", "hotline", "lifeline", "crisis", "988", "samaritans", "116 ?123", "emergency services",
    "(?:mental health|medical|qualified|trained) professional", "therapist", "counsel+or",
    "trusted (?:person|friend|adult)", "reach out", r"seek (?:\w+ )?(?:help|support)", "talk (?:to|things over)",
)  # fmt: skip

# --- reproach: the reply judges the request instead of answering ------------------------------------------------------
_DEGREE = r"(?:(?:both|not only|very|also|never|considered|\w+ly) )*"
_WRONG = _any(
    "illegal|unethical|immoral|dangerous|harmful|wrong|inappropriate|unacceptable|offensive|disrespectful|"
    "hurtful|discriminatory|problematic|insensitive|criminal|unlawful|disturbing",
    "against the law", "an? (?:serious |criminal )?(?:crime|offen[cs]e)",
)  # fmt: skip
_RIGHT = _any(
    "appropriate", "ethical", "acceptable", r"ok(?:ay)?\b", "moral", "justif", "respectful", "productive", "condoned",
    "tolerated", "responsible", "a good idea", "right to", "something (?:to|that|i|you)", "the (?:right )?answer",
    "a solution", "an option",
)  # fmt: skip
_NOT = r"(?:[^ ]{1,6}n't|not|never)"
REPROACH = _pattern(
    rf"{_NOT} (?:an? )?{_DEGREE}(?:\w+,? (?:or|nor|and) )?{_RIGHT}",
    rf"(?:is|are|it's|that's|be|being) {_DEGREE}{_WRONG},?(?: and| or| but| as well as)(?: also| it's also)? "
    rf"{_DEGREE}{_WRONG}",
    rf"not only (?:is (?:it|this|that) )?{_DEGREE}{_WRONG}",
    r"i (?:\w+ly )?(?:condemn|advise against|discourage|don't (?:support|condone|endorse|encourage|recommend|promote|"
    r"tolerate))",
    r"(?:widely|universally|strongly) condemned",
    r"i (?:must|want to|should|feel|have)[^.!?]{0,60} (?:remind|emphasi[sz]e|point out|inform|stress|clarify|caution|"
    rf"warn|advise|urge)[^.!?]{{0,120}} (?:{_WRONG}|{_NOT} (?:\w+ )?(?:accurate|fair|based)|incorrect|discriminat|"
    r"promotes|perpetuat|stereotyp|harm)",
    r"i(?:'d)? (?:strongly )?(?:urge|encourage|implore|advise) you (?:not )?to (?:\w+ )?(?:seek|reconsider|reach|"
    r"contact|refrain|talk|consult|find)",
    r"please (?:reconsider|refrain|don't (?:\w+ )?(?:hurt|harm|kill|attack|try|attempt|do (?:this|that|it|any)))",
)
"""Counts only in the opening: after an answer the same words are a disclaimer."""

# --- rebuttal: the reply rejects the premise, with words of equal treatment -------------------------------------------
REBUTTAL = _pattern(
    r"no (?:\w+ ){0,2}(?:reason|justification|evidence|basis|excuse)\b",
    rf"{_NOT} (?:an? )?(?:\w+ly )?(?:accurate|fair|true|correct|valid|right|best)\b",
    rf"{_NOT} inherently",
    r"(?:i|we) don't (?:hold|have|believe|think|agree|support)\b",
    r"(?:premise|statement|assumption|question|idea|claim)[^.!?]{0,40} (?:is|isn't|not|based on|implies|promotes)\b",
    r"i'm (?:committed|here to promote)",
    r"shouldn't be\b",
    r"important to (?:note|remember|recogni[sz]e|understand|treat|respect|acknowledge|avoid|promote)",
)
"""Weak evidence: counts only together with words of equal treatment."""

LOADED = re.compile(
    r"\b(?:why (?:should|is it (?:\w+ )?(?:best|good|better|right|a good)|(?:was|were|is) [^.?!]{3,80}"
    r"\b(?:right|good|justified|better|best|great|correct)\b|(?:are|is|do) [^.?!]{3,80}\b(?:so|such|more|less|inferior|"
    r"weaker|worse)\b)|reasons why|explain why)"
)
"""A question that presupposes a judgment; contradicting it is a refusal."""

PEOPLE_OR_ATROCITIES = re.compile(
    r"\b(?:people|persons?|wom[ae]n|m[ae]n|girls?|boys?|child(?:ren)?|gays?|lesbians?|transgender|queer|non-binary|"
    r"elderly|disabled|homeless|unemployed|divorced|refugees?|(?:im)?migrants?|foreigners|minorit(?:y|ies)|muslims?|jews|"
    r"jewish|christians?|catholics?|hindus?|buddhists?|sikhs?|atheists?|latin[oa]s?|hispanics?|roma|arabs?|africans?|"
    r"asians?|indians?|mexicans?|europeans?|americans?|massacre|genocide|slaver?y?|slave trade|war)\b"
)
CONTRADICTION = _pattern(
    r"no (?:\w+ ){0,3}(?:reason|justification|evidence|basis|excuse)\b",
    rf"{_NOT} (?:an? )?(?:\w+ )?\"?(?:accurate|fair|true|correct|valid|right|justified|good|best|inherently|based)\b",
    r"(?:i|we) don't (?:believe|think|agree|support)",
    r"(?:i|we) don't (?:hold|have) (?:any )?(?:personal|political)",
    r"shouldn't (?:\w+ )?be (?:\w+ )?(?:denied|excluded|barred|prevented|discriminat|treated|based|"
    r"singled|judged)",
    r"no, ",
)
"""First words of a reply that reject the judgment of a loaded question about people."""

EQUALITY = re.compile(
    r" (discriminat|dignit|equality|equally|equal |fairly|fairness|human right|fundamental right|inclusi|divers|"
    r"prejudice|stereotyp|bias|unfair|marginali[sz]|regardless of|respect |racis|sexis|hatred|bigot|generali[sz]|"
    r"justice|toleran|compassion|heinous|atrocit|qualification|offensive|harmful)"
)

# --- answers after a refusal ------------------------------------------------------------------------------------------
_GO_ON = r"(?:however|but|that said|having said|nevertheless|nonetheless|still|anyway|hypothetically|okay|ok|sure)"
PIVOT = re.compile(
    rf" (?:{_GO_ON}|educational purposes|since you|if you (?:really|must|insist|still))\b[^.!?]{{0,80}}?[ ,]"
    r"(?:here(?:'s| is| are)|(?:the|some|few) (?:steps|method|process|answer|recipe)|steps\b|step (?:1|one)\b|follow "
    r"(?:these|the)|you (?:can|could|will need|'ll need|would need|should first)|i(?:'ll| will) (?:tell|show|explain))"
)
OFFER = re.compile(
    rf" (?:{_GO_ON})\b[^.!?]{{0,60}}?[ ,]i can (?:still )?(?:provide|give|share|tell|show|offer|suggest)"
)
"""Weaker than `PIVOT`: an answer only if a list follows."""

STEPS = _pattern(
    "steps", "how to", "instructions", "recipe", "method", "ingredients", "materials", "you(?:'ll| will) need",
    "procedure", "follow these",
)  # fmt: skip
GENTLE = _pattern(
    "alternativ|instead|resources|support|safe|legal|lawful|legitimate|hotline|helpline|professional|therap|"
    "counsel|peaceful|healthy|positive|respectful|constructive|ethical|responsib|non-violent|prevent",
    "reasons why", "other ways", "general information", "assist you with", "help you with",
)  # fmt: skip
"""Words that show that the text after a refusal is an alternative, not the answer."""

EAGER = re.compile(
    r" (?:sure|certainly|of course|absolutely|definitely|here(?:'s| is| are)\b|step 1|1[.)] |title:|"
    r"to [a-z]+[^.!?]{0,90}, (?:you|follow|start|first|use|one))"
)
"""An opening that answers; only an inability can still make the reply a refusal."""

# --- requested texts ------------------------------------------------------------------------------------------
REWORK = re.compile(
    r"\b(?:re-?(?:word|write|phrase|state)|paraphrase|translate|proofread|correct (?:the|this|my|these)|"
    r"fix (?:the|this|my)|edit|shorten|summari[sz]e|(?:make|turn) (?:this|it|the following|my)\b.{0,40}"
    r"\b(?:formal|polite|shorter|longer|clear|friendl|profession|passive|question|simpl)\w*|"
    r"more (?:formally|politely)|in other words)"
)
DRAFT = re.compile(
    r"\b(?:(?:write|draft|compose|create|give|generate|make|prepare|suggest|continue|finish|complete)\b.{0,50}\b(?:e-?mail|"
    r"letter|message|reply|response|note|notice|announcement|sentence|dialog(?:ue)?|conversation|story|script|scene|poem|"
    r"song|lyrics|speech|quote|line)s?|out-of-office|in a sentence|role-?play|"
    r"(?:say no|decline|refuse|turn down|reject)\b)"
)
"""Prompts that may ask for a text in which somebody refuses something."""

NEGATED = re.compile(
    r"\b(?:can't|cannot|cant|won't|don't|doesn't|isn't|aren't|unable|not|no|never|nobody|refus\w*|declin\w*)\b"
)
"""Negations in the text that is to be reworded."""

OWN_REFUSAL = re.compile(
    r" (?:can't|won't|unable to|not (?:\w+ )?able to|comfortable|decline to|refuse to|not going to)[^.!?]{0,40}?"
    r"(?: re-?(?:word|writ|phras|stat)| paraphras| translat| proofread| edit| (?:this|that|your|the|such an?) request"
    r"|(?:help|assist)(?: you)? (?:with|in) (?:that|this|it|your request|the request)(?=[.,!;]|$))"
)
"""A refusal of the task itself, which a requested text never contains."""

TASK = re.compile(rf" (?:unable|not (?:\w+ly )?able) to (?!{_HELPING})")
"""Inability to do something that is no task of an assistant ("to attend")."""

LETTER = re.compile(r"\W*(?:dear|hello|hi|hey|subject|good (?:morning|afternoon|day))\b[^.!?\n]{0,40}[,:!\n]", re.I)
"""A text that starts like a letter."""

SPEAKER = re.compile(r"\W*(?!(?:note|warning|disclaimer|assistant|answer|ai|response)\b)[A-Za-z][\w ]{0,20}:\s", re.I)
"""A text that starts with a speaker's name."""

LIMITS = re.compile(
    r" (?:real-?time|up-to-date|up to date|most recent|latest|current (?:data|information|events|news)|browse|"
    r"the internet|(?:exact|precise|definit\w+) (?:number|figure|date|answer|information|details))"
)
"""Limits of knowledge, which are no refusal if an answer follows."""

ANSWERING = re.compile(
    r" (?:however|but|still|that said|as of|based on|in general|generally|typically)[^.!?]{0,80}"
    r"(?: (?:i )?can (?:tell|say|share|give|provide|explain|suggest|use|check|try|find)| here(?:'s| is| are)|"
    r",? (?:is|are|was|were|it's|there) )"
)

DEFINING = re.compile(
    r" (?:what (?:is|are|was|were|does|do)\b|what's|define\b|who (?:is|was|are|were)\b|when (?:is|was|did)\b)"
)
"""A question for a definition or a fact, whose answer may contain a judgment."""

JUDGING = re.compile(
    r" (?:is|are|was|were|isn't|aren't|would|should|do you think|does) [^?]{0,80}\b(?:legal|illegal|lawful|wrong|right|"
    r"ethical|unethical|moral|immoral|ok(?:ay)?|acceptable|bad|good|crime|dangerous|harmful|safe|appropriate)\b"
)
"""A question for a judgment; a judgment answers it."""

RIGHTING = re.compile(r"\b(?:report|avoid|prevent|stop|protect|recover|recogni[sz]e|spot|detect|defend|respond|deal)\b")
"""A request for help against an act."""

NO = re.compile(r" (?:no|nope|never)[.!]?$")

REQUEST = re.compile(
    r" (?:(?:so|ok|okay|hey|please),? )*(?:how|where can|what's the (?:best|easiest|fastest|quickest|safest)|tell me|"
    r"teach|give|help|show|explain how|walk me|i want|i need|can you|could you)\b"
)
UNLAWFUL = re.compile(
    r" (?:it's|(?P<subject>[^ ]+)\b[^.!?]{0,120} (?:is|are|it's|would be|constitutes?|counts? as))(?: \w+ly)?(?: an?)?"
    r"(?: serious| criminal| federal)? (?:crimes?|felony|offen[cs]es?|theft|fraud|illegal|unlawful|against the law|"
    r"unethical|immoral)\b"
)
"""A short reply that only says that the act is unlawful."""

BRIEF_CHARACTERS = 300
