/** Every method the server has, from the contract's own files: a new one appears here by itself. */
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type * as grpc from "@grpc/grpc-js";
import { ReflectionService } from "@grpc/reflection";
import { HealthImplementation } from "grpc-health-check";
import { packageDefinition, troupe } from "../../../src/rpc/load-proto.js";
import { packageRoot } from "../../../src/shared/paths.js";

export type AnyMethod = grpc.MethodDefinition<object, object>;

/** As the proto text lists them, whatever the loader and the generated types know. */
export function methodsInProtoFiles(): string[] {
  const folder = join(packageRoot, "proto", "troupe", "v1");
  return readdirSync(folder).flatMap((file) => {
    const text = readFileSync(join(folder, file), "utf8").replace(/\/\/.*$/gm, "");
    const name = /^package\s+([\w.]+);/m.exec(text)?.[1];
    return [...text.matchAll(/service\s+(\w+)\s*\{([\s\S]*?)\n\}/g)].flatMap(([, service, body]) =>
      [...body.matchAll(/rpc\s+(\w+)/g)].map(([, method]) => `/${name}.${service}/${method}`),
    );
  });
}

/** What the libraries add by themselves. */
function methodsOfLibraries(): AnyMethod[] {
  const added: AnyMethod[] = [];
  const collector = {
    addService: (service: grpc.ServiceDefinition) => added.push(...(Object.values(service) as AnyMethod[])),
  } as unknown as grpc.Server;
  new HealthImplementation({}).addToServer(collector);
  new ReflectionService(packageDefinition).addToServer(collector);
  return added;
}

export function everyMethod(): AnyMethod[] {
  const services = Object.values(troupe.v1).flatMap((entry) =>
    typeof entry === "function" && "service" in entry
      ? (Object.values((entry as { service: grpc.ServiceDefinition }).service) as AnyMethod[])
      : [],
  );
  return [...services, ...methodsOfLibraries()];
}
