// One scenario of a program that uses the OpenAI SDK or the AI SDK's Google provider; the outcome as JSON.
const [sdk, scenario, model] = process.argv.slice(2);

async function collect(chunks, textOf) {
  const seen = { chunks: 0, text: "", error: "" };
  try {
    for await (const chunk of chunks) {
      seen.chunks += 1;
      seen.text += textOf(chunk);
    }
  } catch (error) {
    seen.error = String(error);
  }
  return seen;
}

const openai = () => {
  const OpenAI = require("openai");
  const client = new OpenAI({ maxRetries: 0 });
  const messages = [{ role: "user", content: "hello" }];
  const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object", properties: {} } } }];
  return {
    plain: async () => {
      const answer = await client.chat.completions.create({ model, messages });
      return { text: answer.choices[0].message.content, finish: answer.choices[0].finish_reason };
    },
    stream: async () => {
      const chunks = await client.chat.completions.create({ model, messages, stream: true });
      return collect(chunks, (chunk) => chunk.choices[0]?.delta?.content ?? "");
    },
    tool: async () => {
      const asked = [{ role: "user", content: "[[call=weather]] hello" }];
      const first = await client.chat.completions.create({ model, messages: asked, tools });
      const said = first.choices[0].message;
      const result = { role: "tool", tool_call_id: said.tool_calls[0].id, content: "sunny" };
      const second = await client.chat.completions.create({ model, messages: [...asked, said, result], tools });
      return { call: said.tool_calls[0].function.name, text: second.choices[0].message.content };
    },
  };
};

const vercel = () => {
  const { generateText, streamText, stepCountIs, tool } = require("ai");
  const { createGoogleGenerativeAI } = require("@ai-sdk/google");
  const { z } = require("zod");
  const google = createGoogleGenerativeAI({
    baseURL: process.env.GEMINI_API_BASE,
    apiKey: process.env.GEMINI_API_KEY,
  });
  const given = { model: google(model), maxRetries: 0 };
  return {
    plain: async () => {
      const answer = await generateText({ ...given, prompt: "hello" });
      return { text: answer.text, finish: answer.finishReason };
    },
    stream: async () => {
      let told;
      const answer = streamText({ ...given, prompt: "hello", onError: ({ error }) => (told = error) });
      const seen = await collect(answer.textStream, (text) => text);
      if (told) seen.error ||= String(told);
      return seen;
    },
    tool: async () => {
      const called = [];
      const weather = tool({
        description: "the weather",
        inputSchema: z.object({}),
        execute: async () => (called.push("weather"), "sunny"),
      });
      const how = { tools: { weather }, stopWhen: stepCountIs(3), prompt: "[[call=weather]] hello" };
      const answer = await generateText({ ...given, ...how });
      return { call: called[0], text: answer.text };
    },
  };
};

({ openai, vercel })
  [sdk]()
  [scenario]()
  .then(
    (outcome) => console.log(JSON.stringify(outcome)),
    (error) => {
      console.error(error);
      process.exitCode = 1;
    },
  );
