// The Vercel AI SDK with its own telemetry (`ai.*` attributes), exported as OTLP/JSON over HTTP, span by span. Does
// what the Python clients do (scenarios.py), and gets by its environment where the model and tracegate are.

import { createOpenAI } from '@ai-sdk/openai';
import { SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { NodeTracerProvider, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-node';
import { embed, generateText, stepCountIs, streamText, tool } from 'ai';
import { z } from 'zod';

const { CLIENT, COLOR, VERSION, PROVIDER_URL, OTLP_HTTP } = process.env;
const MODEL = 'gpt-4o-mini';
const EMBEDDER = 'text-embedding-3-small';

const provider = new NodeTracerProvider({
  resource: resourceFromAttributes({ 'service.name': CLIENT }),
  spanProcessors: [
    new SimpleSpanProcessor(new OTLPTraceExporter({ url: `${OTLP_HTTP}/v1/traces`, compression: 'gzip' })),
  ],
});
provider.register();
const openai = createOpenAI({ baseURL: PROVIDER_URL, apiKey: 'none' });
const model = openai.chat(MODEL);
const telemetry = { experimental_telemetry: { isEnabled: true } };

const weather = tool({
  description: 'The weather in a city',
  inputSchema: z.object({ city: z.string() }),
  execute: async () => ({ rain: true }),
});

/** The request's span, which alone knows the color; what fails inside it has failed for the user. */
async function request(scenario, work) {
  const attributes = {
    'gateway.route.name': CLIENT,
    'gateway.route.color': COLOR,
    'gateway.route.version': VERSION,
    'session.id': scenario,
  };
  await trace.getTracer('e2e.gateway').startActiveSpan(scenario, { kind: SpanKind.SERVER, attributes }, async (span) => {
    try {
      await work();
    } catch (error) {
      span.setStatus({ code: SpanStatusCode.ERROR, message: String(error) });
    }
    span.end();
  });
}

await request('agent', () =>
  generateText({
    model,
    prompt: 'agent: does it rain in Oslo?',
    tools: { weather },
    stopWhen: stepCountIs(3),
    ...telemetry,
  }),
);
await request('stream', async () => {
  const streamed = streamText({ model, prompt: 'stream: does it rain?', ...telemetry });
  for await (const _ of streamed.textStream);
});
await request('retry', () => generateText({ model, prompt: 'retry: does it rain?', maxRetries: 2, ...telemetry }));
await request('error', () => generateText({ model, prompt: 'error: does it rain?', maxRetries: 0, ...telemetry }));
await request('embed', () => embed({ model: openai.embedding(EMBEDDER), value: 'rain', ...telemetry }));
await provider.shutdown();
