/**
 * Serialises a graph as an ONNX ModelProto. Field numbers are those of onnx.proto3 (ONNX 1.16, IR version 9).
 *
 * @see https://github.com/onnx/onnx/blob/v1.16.0/onnx/onnx.proto3
 */
import {
  ONNX_TYPE_CODE,
  type Attribute,
  type ConstantTensor,
  type Graph,
  type Initializer,
  type ValueInfo,
} from "./graph.js";
import { ProtobufWriter } from "./protobuf.js";

const IR_VERSION = 9;
const ONNX_OPSET = 20;
const MICROSOFT_OPSET = 1;
/** AttributeProto.AttributeType */
const ATTRIBUTE_TYPE = { float: 1, int: 2, string: 3, tensor: 4, ints: 7 };

/** TensorProto.DataLocation */
const EXTERNAL_DATA = 1;

/** Dimensions of graph inputs and outputs by value name, in place of those in the graph; text names a free one. */
export type SymbolicDims = Readonly<Record<string, readonly (string | number)[]>>;

export function modelProto(graph: Graph, symbols: SymbolicDims = {}): Uint8Array {
  return new ProtobufWriter(1 << 20)
    .int(1, IR_VERSION)
    .string(2, "troupe")
    .message(7, (writer) => writeGraph(writer, graph, symbols))
    .message(8, (opset) => opset.string(1, "").int(2, ONNX_OPSET))
    .message(8, (opset) => opset.string(1, "com.microsoft").int(2, MICROSOFT_OPSET))
    .finish();
}

function writeGraph(writer: ProtobufWriter, graph: Graph, symbols: SymbolicDims): void {
  graph.nodes.forEach((node, index) => {
    writer.message(1, (proto) => {
      for (const input of node.inputs) proto.string(1, input);
      for (const output of node.outputs) proto.string(2, output);
      proto.string(3, `${node.op}#${index}`).string(4, node.op);
      for (const [name, value] of Object.entries(node.attributes)) {
        proto.message(5, (attribute) => writeAttribute(attribute, name, value));
      }
      if (node.domain !== "") proto.string(7, node.domain);
    });
  });
  writer.string(2, "program");
  for (const initializer of graph.initializers) {
    writer.message(5, (proto) => writeInitializer(proto, initializer));
  }
  for (const { name, dims, dtype } of graph.frozen ?? []) {
    writer.message(5, (proto) => {
      // A location is compulsory; the values given at loading take its place.
      writeReference(proto, { name, dims, dtype }, { location: "memory" });
    });
  }
  const dimsOf = ({ name, dims }: ValueInfo) => symbols[name] ?? dims;
  for (const input of graph.inputs)
    writer.message(11, (proto) => writeValueInfo(proto, input, dimsOf(input)));
  for (const output of graph.outputs) {
    writer.message(12, (proto) => writeValueInfo(proto, output, dimsOf(output)));
  }
}

function writeAttribute(writer: ProtobufWriter, name: string, value: Attribute): void {
  writer.string(1, name);
  if (typeof value === "number") writer.int(3, value).int(20, ATTRIBUTE_TYPE.int);
  else if (typeof value === "string") writer.string(4, value).int(20, ATTRIBUTE_TYPE.string);
  else if ("float" in value) writer.float(2, value.float).int(20, ATTRIBUTE_TYPE.float);
  else if ("tensor" in value) {
    writer.message(5, (proto) => writeTensor(proto, value.tensor, "")).int(20, ATTRIBUTE_TYPE.tensor);
  } else {
    for (const element of value) writer.int(8, element);
    writer.int(20, ATTRIBUTE_TYPE.ints);
  }
}

function writeInitializer(writer: ProtobufWriter, initializer: Initializer): void {
  const { external, bytes, name } = initializer;
  if (external === undefined) return writeTensor(writer, initializer, name);
  const { file, offset } = external;
  writeReference(writer, initializer, { location: file, offset: `${offset}`, length: `${bytes.length}` });
}

/** A tensor whose bytes are elsewhere. */
function writeReference(
  writer: ProtobufWriter,
  { name, dims, dtype }: ValueInfo,
  where: Readonly<Record<string, string>>,
): void {
  for (const dim of dims) writer.int(1, dim);
  writer.int(2, ONNX_TYPE_CODE[dtype]).string(8, name);
  for (const [key, value] of Object.entries(where)) {
    writer.message(13, (entry) => entry.string(1, key).string(2, value));
  }
  writer.int(14, EXTERNAL_DATA);
}

function writeTensor(writer: ProtobufWriter, tensor: ConstantTensor, name: string): void {
  for (const dim of tensor.dims) writer.int(1, dim);
  writer.int(2, ONNX_TYPE_CODE[tensor.dtype]).string(8, name).bytes(9, tensor.bytes);
}

function writeValueInfo(writer: ProtobufWriter, info: ValueInfo, dims: readonly (string | number)[]): void {
  writer.string(1, info.name).message(2, (type) =>
    type.message(1, (tensor) => {
      tensor.int(1, ONNX_TYPE_CODE[info.dtype]);
      tensor.message(2, (shape) => {
        for (const dim of dims) {
          shape.message(1, (proto) => (typeof dim === "number" ? proto.int(1, dim) : proto.string(2, dim)));
        }
      });
    }),
  );
}
