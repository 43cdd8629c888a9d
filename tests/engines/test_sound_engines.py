"""Speech by a real voice, heard by a real recogniser, both on a host. They are installed for `make test-engines`."""

import openai

from completions.stage import Stage
from engines.conftest import charged
from engines.on_a_host import agent_of, offered, path
from people import Person
from servers.engines import program, recogniser

TEXT = "The weather is nice today."
FREE = {"prompt": "0", "completion": "0"}
VOICE = {"engine": "tts", "kind": "speech", "served_name": "hosts/voice"}
EAR = {"engine": "whisper", "kind": "transcription", "served_name": "hosts/ear"}


async def test_what_is_spoken_on_a_host_is_heard_there_and_both_are_charged(stage: Stage, someone: Person) -> None:
    operator, listener = await stage.customer(role="admin"), await stage.customer()
    made = await stage.post(operator, {"name": "sound"}, "/admin/hosts")
    ears, voice = program("whisper", "faster-whisper-server").parent, str(program("speech", "python"))
    token, root = made.json()["enrolment"]["token"], str(recogniser())
    with agent_of(stage, token, ears, "--allow-root", root, python=voice) as models:
        host_id = made.json()["id"]
        await offered(stage, operator, host_id, {**VOICE, "source": path(models)}, FREE | {"character": "0.00001"})
        await offered(stage, operator, host_id, {**EAR, "source": path(recogniser())}, FREE | {"second": "0.0001"})
        with openai.OpenAI(base_url=f"{stage.gateway.address}/v1", api_key=someone.secret, max_retries=0) as client:
            spoken = client.audio.speech.create(model="hosts/voice", voice="any", input=TEXT, response_format="wav")
            sound = spoken.read()
        with openai.OpenAI(base_url=f"{stage.gateway.address}/v1", api_key=listener.secret, max_retries=0) as client:
            heard = client.audio.transcriptions.create(model="hosts/ear", file=("a.wav", sound))
    seconds = -(-(len(sound) - 44) // 48_000)
    assert heard.text.strip().lower().rstrip(".") == TEXT.lower().rstrip(".")
    assert (await charged(stage, someone))["charge_nanos"] == len(TEXT) * 10_000
    assert (await charged(stage, listener))["charge_nanos"] == seconds * 100_000
