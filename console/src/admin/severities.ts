/** The choices of filters for alerts and security events. */
export const SEVERITIES: [string, string][] = [
  ["critical", "Critical"],
  ["warning", "Warning"],
  ["info", "Information"],
];
export const SEEN: [string, string][] = [
  ["false", "Not acknowledged"],
  ["true", "Acknowledged"],
];
