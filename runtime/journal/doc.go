// Package journal remembers the last record of each of many keys, in one file that is written in place, so that a record
// is on the disk after one fdatasync that has no metadata to write.
//
// It is not a database: all keys are in memory, records are small, and what is not the last record of a key is
// forgotten. It has no readers beside its one process.
//
// The file is full of zeros before it is used, so neither its size nor its blocks change when a frame is written, and a
// file system's own journal is not involved. When it is full, the live records go to a new file, which takes the place
// of the old one by rename.
//
//	8 bytes   "skepjrn1"
//	frames:   length of the body, 4 bytes, little endian; never 0
//	          CRC-32C of the body, 4 bytes
//	          body: 1 byte kind (1 put, 2 delete), 1 byte length of the key, the key, the data
//	zeros to the end of the file
//
// Invariants:
//
//	I1  What Put was told to make durable is on the disk when it returns nil, with everything that was put before.
//	I2  After a crash of the process nothing is lost that Put returned for. After a crash of the machine, what was put
//	    after the last durable Put may be lost, the last first.
//	I3  A torn frame at the end is what a crash leaves and is dropped. Anything else that can't be read is damage, and
//	    Open says so.
//	I4  Several durable Puts at once share an fdatasync. After one that failed, nothing in the file is trusted to be on
//	    the disk: the next Put writes a new file.
//
// Concurrency: all methods may be called at once. Lock order: syncing before mu.
package journal
