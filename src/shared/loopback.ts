/** Is a host, as configured or dialled, this machine itself? Names other than localhost are not looked up. */
export const isLoopback = (host: string): boolean => /^(127(\.\d{1,3}){3}|::1|\[::1\]|localhost)$/.test(host);
