// Checks objects of the Prometheus operator, a JSON list on standard input, against its schemas.
//
//   node operator.mjs TOOLS        the directory that has node_modules
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const models = "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/index.js";
const schemas = await import(pathToFileURL(`${process.argv[2]}/node_modules/${models}`));
let faults = 0;
for (const object of JSON.parse(readFileSync(0, "utf8"))) {
  const Schema = schemas[object.kind];
  try {
    if (!Schema) throw new Error("no such kind");
    new Schema(object).validate();
  } catch (error) {
    faults += 1;
    console.log(`${object.kind} ${object.metadata?.name}: ${error.message}`);
  }
}
process.exit(faults ? 1 : 0);
