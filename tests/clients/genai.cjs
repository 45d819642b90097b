// One scenario of a program that uses @google/genai, configured by its environment alone; the outcome as JSON.
const { GoogleGenAI, FunctionCallingConfigMode } = require("@google/genai");

const [scenario, model] = process.argv.slice(2);
const ai = new GoogleGenAI({});
const tools = [{ functionDeclarations: [{ name: "weather", description: "the weather" }] }];

async function stream(contents) {
  const seen = { chunks: 0, text: "", finish: "", error: "" };
  try {
    for await (const chunk of await ai.models.generateContentStream({ model, contents })) {
      seen.chunks += 1;
      seen.text += chunk.text ?? "";
      seen.finish = chunk.candidates?.[0]?.finishReason ?? seen.finish;
    }
  } catch (error) {
    seen.error = String(error);
  }
  return seen;
}

const scenarios = {
  plain: async () => {
    const answer = await ai.models.generateContent({ model, contents: "hello" });
    return { text: answer.text, tokens: answer.usageMetadata.totalTokenCount };
  },
  stream: () => stream("hello"),
  tool: async () => {
    const chat = ai.chats.create({ model, config: { tools } });
    const first = await chat.sendMessage({ message: "[[call=weather]] hello" });
    const [call] = first.functionCalls;
    const response = { name: call.name, response: { sky: "blue" } };
    const second = await chat.sendMessage({ message: [{ functionResponse: response }, { text: "hello" }] });
    return { call: call.name, text: second.text };
  },
  live: async () => {
    const seen = { text: "", code: 0 };
    let turned, closed;
    const turn = new Promise((resolve) => (turned = resolve));
    const end = new Promise((resolve) => (closed = resolve));
    const session = await ai.live.connect({
      model,
      config: { responseModalities: ["TEXT"] },
      callbacks: {
        onmessage: (message) => {
          seen.text += message.text ?? "";
          if (message.serverContent?.turnComplete) turned();
        },
        onerror: (error) => closed(error),
        onclose: (event) => { seen.code = event.code; turned(); closed(); },
      },
    });
    session.sendClientContent({ turns: "hello", turnComplete: true });
    await turn;
    session.close();
    await end;
    return seen;
  },
  others: async () => {
    const counted = await ai.models.countTokens({ model, contents: "hello" });
    const embedded = await ai.models.embedContent({ model: "gemini-embedding-001", contents: "hello" });
    const names = [];
    for await (const found of await ai.models.list()) names.push(found.name);
    return { tokens: counted.totalTokens, size: embedded.embeddings[0].values.length, names };
  },
};

scenarios[scenario]().then(
  (outcome) => console.log(JSON.stringify(outcome)),
  (error) => {
    console.error(String(error));
    process.exitCode = 1;
  },
);
