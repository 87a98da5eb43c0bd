// Package protocol is what the supervisor and its clients say to each other over a unix socket.
//
// It holds the messages and their framing, no behaviour. Both ends come from the same source tree; a field that one
// of them doesn't know is an error, not ignored.
//
//	client ──Call──> supervisor ──Reply──> client      one at a time on a connection
//	client ──Call{Op: OpEvents}──> supervisor ──Reply{Event}──> ... until either side closes
//
//	client ──Call{Op: OpExec}──> supervisor ──Reply{Started}, descriptors──> client
//	client ──Call{Op: OpKill}──> supervisor    any number of them, without a reply
//	                             supervisor ──Reply{Ended}──> client    and the connection is closed
//
// A copy is as an exec, of a process that is the runtime's own: see Copy.
//
//	client ──Call{Op: OpAttach}──> supervisor ──Reply{Started}, descriptors──> client
//	then as for an exec, but that the client's going away ends nothing
//
// A process of an exec that is not detached is killed when its client closes the connection.
//
// A frame, on the wire:
//
//	4 bytes  length of the message, big endian, 1 to MaxMessage
//	4 bytes  length of the attachment, big endian, 0 to MaxAttachment
//	message  JSON: a Call or a Reply
//	attachment  of create and rewrite: the seccomp profile, then the data of the call's Files in their order
//
// Invariants:
//
//	I1  The data of files is only ever in attachments: it is in no JSON text, log line or error, and both ends
//	    overwrite their buffers when they are done.
//	I2  No length that a peer sends is believed before it was compared with its limit.
package protocol
