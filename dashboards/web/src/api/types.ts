// The API's values under the names that the page uses. Their shapes are generated from the API's own document
// (`check-build --write`), so that the page cannot expect what the API does not say.

import type { components } from "./openapi";

type Schemas = components["schemas"];

/** Microseconds since 1970-01-01 UTC. */
export type Timestamp = Schemas["Timestamp"];
export type Advice = Schemas["Advice"];
export type AdviceWanted = Schemas["AdviceWanted"];
export type Calendar = Schemas["Calendar"];
export type Forecast = Schemas["Forecast"];
/** Where people sign in, and as what. */
export type Issuer = Schemas["SignIn"];
export type LeftOut = Schemas["LeftOut"];
export type Link = Schemas["Link"];
export type Me = Schemas["Me"];
export type ModeView = Schemas["ModeView"];
export type MoveRecord = Schemas["MoveView"];
export type MoveState = Schemas["MoveState"];
export type Plan = Schemas["Plan"];
export type Policy = Schemas["Policy"];
export type PredictedRead = Schemas["PredictedRead"];
export type Profile = Schemas["Profile"];
export type Proposals = Schemas["Proposals"];
export type Replayed = Schemas["Replayed"];
export type Refusal = Schemas["Refusal"];
export type Rule = Schemas["Rule"];
export type Run = Schemas["RunView"];
export type Scope = Schemas["Scope"];
export type SiteAdvice = Schemas["SiteAdvice"];
export type SiteView = Schemas["SiteView"];
export type Sites = Schemas["Sites"];
export type Switch = Schemas["Switch"];
export type Verdicts = Schemas["Verdicts"];
export type Warmup = Schemas["WarmupView"];
export type WarmupPreview = Schemas["WarmupPreview"];
export type WarmupWanted = Schemas["WarmupWanted"];
export type Way = Schemas["Way"];
export type WaysIn = Schemas["WaysIn"];
export type WhatIfWanted = Schemas["WhatIfWanted"];

/** Part of a list; `next` is the cursor of the rest. */
export interface Page<T> {
  items: T[];
  next?: number | null;
}
