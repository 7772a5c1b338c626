import tseslint from "typescript-eslint";

// The arrows of docs/architecture.md, enforced: pure code stays pure, and the
// coordinator never loads a tensor library.
const restrict = (files, patterns) => ({
  files,
  rules: { "no-restricted-imports": ["error", { patterns }] },
});

export default tseslint.config(
  { ignores: ["dist/", "node_modules/", "runs/", "coverage/", "src/rpc/generated/"] },
  ...tseslint.configs.recommended,
  {
    files: ["src/**/*.ts", "test/**/*.ts", "bench/**/*.ts", "examples/**/*.ts"],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      "@typescript-eslint/no-floating-promises": "error",
      "@typescript-eslint/no-misused-promises": "error",
      "@typescript-eslint/await-thenable": "error",
      "@typescript-eslint/switch-exhaustiveness-check": [
        "error",
        { considerDefaultExhaustiveForUnions: true },
      ],
      "@typescript-eslint/consistent-type-imports": "error",
      "@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
      "no-console": "error",
      eqeqeq: "error",
    },
  },
  {
    files: ["src/cli/**/*.ts", "bench/**/*.ts", "examples/**/*.ts", "test/**/*.ts"],
    rules: { "no-console": "off" },
  },
  {
    files: ["src/rl/**/*.ts", "src/coordinator/core/**/*.ts"],
    rules: {
      "no-restricted-globals": ["error", "Date", "process", "setTimeout", "setInterval"],
      "no-restricted-properties": ["error", { object: "Math", property: "random" }],
    },
  },
  restrict(
    ["src/coordinator/**/*.ts"],
    [
      {
        group: ["@tensorflow/*", "**/engine/*", "**/models/*", "**/learner/*", "**/rollout/*"],
        message: "The coordinator never loads a tensor library; it reaches the workers over gRPC only.",
      },
    ],
  ),
  restrict(
    ["src/rl/**/*.ts"],
    [
      {
        group: [
          "node:*",
          "@grpc/*",
          "**/rpc/*",
          "**/config/*",
          "**/coordinator/*",
          "**/learner/*",
          "**/rollout/*",
          "**/data/*",
        ],
        message: "src/rl is pure: no I/O, clock, config or wire types.",
      },
    ],
  ),
  restrict(
    ["src/engine/**/*.ts", "src/models/**/*.ts"],
    [
      {
        group: ["@grpc/*", "**/rpc/*", "**/coordinator/*", "**/learner/*", "**/rollout/*", "**/config/*"],
        message: "engine and models know nothing of the cluster.",
      },
    ],
  ),
);
