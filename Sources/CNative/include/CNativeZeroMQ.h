// The part of ZeroMQ's C API (zmq.h of 4.3) that the worker link uses.
#ifndef CHECKPOINT_ENGINE_CNATIVE_ZEROMQ_H
#define CHECKPOINT_ENGINE_CNATIVE_ZEROMQ_H

#include <stdint.h>

// zmq_msg_t: 64 opaque bytes, aligned as a pointer.
typedef struct ce_zmq_msg {
    uint64_t opaque[8];
} ce_zmq_msg;

// zmq_pollitem_t on systems where a file descriptor is an int.
typedef struct ce_zmq_pollitem {
    void *socket;
    int fd;
    short events;
    short revents;
} ce_zmq_pollitem;

_Static_assert(sizeof(ce_zmq_msg) == 64, "zmq_msg_t has 64 bytes");
_Static_assert(sizeof(ce_zmq_pollitem) == 16, "zmq_pollitem_t has 16 bytes");

enum {
    CE_ZMQ_CTX_MAX_SOCKETS = 2,
    CE_ZMQ_PAIR = 0,
    CE_ZMQ_REP = 4,
    CE_ZMQ_DEALER = 5,
    CE_ZMQ_RCVMORE = 13,
    CE_ZMQ_LINGER = 17,
    CE_ZMQ_SNDHWM = 23,
    CE_ZMQ_RCVHWM = 24,
    CE_ZMQ_MAXMSGSIZE = 22,
    CE_ZMQ_DONTWAIT = 1,
    CE_ZMQ_SNDMORE = 2,
    CE_ZMQ_POLLIN = 1,
    CE_ZMQ_EVENT_DISCONNECTED = 0x0200,
    CE_ZMQ_EVENT_HANDSHAKE_SUCCEEDED = 0x1000
};

#endif
