/** Is a host, as configured or dialled, this machine itself? Names other than localhost are not looked up. */
export const isLoopback = (host: string): boolean => /^(127(\.\d{1,3}){3}|::1|\[::1\]|localhost)$/.test(host);

/**
 * The first of the addresses, `host:port` with or without a scheme, that is of another machine.
 */
export const firstElsewhere = (addresses: readonly string[]): string | undefined =>
  addresses.find((address) => !isLoopback(address.replace(/^\w+:\/\//, "").replace(/:\d+$/, "")));
