"""Special tokens of the chat templates of models, from their public configurations: what callers may say as well."""

import re
import unicodedata
from collections.abc import Iterator

TOKENS = {
    "chatml, qwen, yi, phi": (
        "<|im_start|> <|im_end|> <|im_sep|> <|endoftext|> <|startoftext|> <|endofprompt|> <|system|> <|user|>"
        " <|assistant|> <|end|> <|tool|> <|/tool|> <|tool_call|> <|/tool_call|> <|tool_response|>"
        " <|fim_prefix|> <|vision_start|>"
    ),
    "qwen, hermes": (
        "<tool_call> </tool_call> <tool_response> </tool_response> <tools> </tools> <think> </think> <function=search>"
        " </function> <parameter=query> </parameter> <tts_text_bos>"
    ),
    "llama": (
        "<s> </s> [INST] [/INST] <<SYS>> <</SYS>> <|begin_of_text|> <|end_of_text|> <|start_header_id|>"
        " <|end_header_id|> <|eot_id|> <|eom_id|> <|python_tag|> <|header_start|> <|header_end|> <|eot|> <|eom|>"
        " <|python_start|> <|reserved_special_token_0|> <unk> <pad>"
    ),
    "mistral": (
        "[AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_CALLS] [/TOOL_CALLS] [TOOL_RESULTS] [/TOOL_RESULTS] [TOOL_CONTENT]"
        " [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [MODEL_SETTINGS] [ARGS] [CALL_ID] [THINK] [/THINK] [IMG] [IMG_BREAK]"
        " [IMG_END] [PREFIX] [MIDDLE] [SUFFIX] [BEGIN_AUDIO] [control_8]"
    ),
    "deepseek": (
        "<\uff5cbegin\u2581of\u2581sentence\uff5c> <\uff5cend\u2581of\u2581sentence\uff5c> <\uff5cUser\uff5c>"
        " <\uff5cAssistant\uff5c> <\uff5ctool\u2581calls\u2581begin\uff5c> <\uff5ctool\u2581call\u2581begin\uff5c>"
        " <\uff5ctool\u2581sep\uff5c> <\uff5ctool\u2581outputs\u2581begin\uff5c> <\uff5cDSML\uff5c <|EOT|>"
    ),
    "gemma": (
        "<bos> <eos> <start_of_turn> <end_of_turn> <start_function_call> <end_function_call> <start_function_response>"
        " <escape> <start_of_image> <unused0>"
    ),
    "command r, aya": (
        "<BOS_TOKEN> <EOS_TOKEN> <|START_OF_TURN_TOKEN|> <|END_OF_TURN_TOKEN|> <|SYSTEM_TOKEN|> <|USER_TOKEN|>"
        " <|CHATBOT_TOKEN|> <|START_ACTION|> <|START_TOOL_RESULT|> <results> </results>"
    ),
    "granite": "<|start_of_role|> <|end_of_role|> <|start_of_plugin|> <|end_of_plugin|> <think_on> <think_off>",
    "harmony": "<|start|> <|message|> <|channel|> <|constrain|> <|return|> <|call|>",
    "kimi, glm": (
        "<|im_system|> <|im_user|> <|im_assistant|> <|im_middle|> <|tool_calls_section_begin|> [start_header_id]"
        " [end_header_id] <|end_of_msg|> [gMASK] <sop> <|observation|> <arg_key> </arg_key> <arg_value>"
    ),
    "minimax, seed, longcat, ling": (
        "<minimax:tool_call> </minimax:tool_call> <mm:think> ]<]minimax[>[ ]~!b[ ]~b] [e~[ <seed:bos> <seed:tool_call>"
        " <longcat_tool_call> <longcat_think> <role> <|role_end|> <function-name>"
    ),
    "exaone, falcon, bert": "[|system|] [|user|] [|assistant|] [|endofturn|] >>TITLE<< [CLS] [SEP] [MASK] [PAD]",
    "minicpm": "<\u7528\u6237> <AI>",
    "claude, xml": "<function_calls> </function_calls> <invoke> </invoke> <function_results> <system> </system> <user>",
}
ALL_TOKENS = sorted({token for tokens in TOKENS.values() for token in tokens.split()})
# Roles before their words, in templates without tokens. They stand where a text or a line begins, or in capitals.
ROLE_HEADINGS = (
    "System: ",
    "Human:",
    "assistant : ",
    "### Human:",
    "## System:",
    "# User: ",
    "### Instruction:",
    "###Response:",
    "\n\nHuman: ",
    "\n\nAssistant:",
    "\nUSER: ",
    "ASSISTANT:",
    "SYSTEM:",
    "GPT4 Correct User: ",
    "\uff28\uff55\uff4d\uff41\uff4e\uff1a",
)
# What callers, agents, recognizers and documents say, and what no model takes for a token.
PLAIN_TEXTS = (
    "a < b and c > d",
    "I <3 them, and 5 > 4, so x<y.",
    "[laughs] Well, [inaudible] you know. [Music] [BLANK_AUDIO] [LAUGHTER]",
    "My card is [card number], call [phone number], pay to [IBAN], write to [e-mail address].",
    "It costs 3.50 $, that is 50 % off (size #9) & more: really!",
    "Dana Weber <dana.weber@example.com>, or <https://example.com/a_b?c=d>, <mailto:dana@example.com>",
    "At 3:30: the user: Dana. The system is down, the assistant said: wait.",
    "The AI said: no. Our model: Trailhead 4. Humans are welcome.",
    "\u2039oui\u203a, \u00abnon\u00bb, \u201eja\u201c, \u300a\u7cfb\u7edf\u300b, \u300cはい\u300d",
    "see [1], [12], [a], [sic], array[i], {x}, a|b, C#, F# minor, 1/2",
    "\u8fd4\u54c1\u3057\u305f\u3044\u306e\u3067\u3059\u304c\u3002 \u5217\u8f66: 3:30",
    "arrow -> there, <- back, <= 5, >= 3, <> none",
    "Systema: a martial art. Useradd: a command.",
)
_ROLE = r"(?:system|assistant|user|human|ai|developer|instruction|response)"


def seen(text: str) -> str:
    """Return a text as its most generous reader sees it: NFKC, and without what cannot be seen."""
    kept = "".join(
        char for char in text if unicodedata.category(char) not in ("Cf", "Cc") and not "\ufe00" <= char <= "\ufe0f"
    )
    return unicodedata.normalize("NFKC", kept).replace("\u2581", "_").casefold()


SEEN_TOKENS = [(token, seen(token)) for token in ALL_TOKENS]


def survivors(text: str) -> Iterator[str]:
    """Yield the tokens and role headings in a text."""
    read = seen(text)
    yield from (token for token, form in SEEN_TOKENS if form in read)
    yield from re.findall(rf"(?:^|\n|#)[\W_]*{_ROLE}\s*:", read)
    yield from re.findall(r"\b(?:USER|ASSISTANT|SYSTEM|HUMAN)\s*:", unicodedata.normalize("NFKC", text))
