// Package auditfile writes and reads exports of the audit log: one JSON object a line, in a form that stays.
//
// It checks that a line is one of an export, not that the entries form a chain: that is package chain.
//
// # Format
//
// The first line is the log, each other an entry. Names that are empty or 0 may be left out; none that is not listed here is taken.
// Times are RFC 3339, hashes SHA-256 in hex.
//
//	{"type":"log","version":1,"cluster_id":"…","anchor":{"sequence":0,"hash":"…"},"head":{"sequence":2,"hash":"…","recovered_at":"…"}}
//	{"type":"entry","sequence":1,"time":"…","method":"Control.CreateSecret","caller_kind":"admin","caller":"uid 0","address":"@",
//	 "manager":"…","object_kind":"secret","object_id":"…","object_name":"db","result":"ok","summary":"created","request_id":"…",
//	 "count":0,"first_at":"…","hash":"…"}
//
// The anchor is the place before the first entry of the file. What a name means is said beside the fields of api.AuditEvent.
//
// # Errors
//
// A *LineError names the line that is none of an export.
package auditfile
