'use strict';

/**
 * What a backend of your own may extend: it has no methods, only documentation (see the types) and KEEP. Any object with the
 * methods will do.
 */
class Backend {}

/** The ttl that `set` and `setIf` are given, where `keepsTtl` is true, for "keep the expiry that the value there has". */
Object.defineProperty(Backend, 'KEEP', { value: Symbol('counterfoil.KEEP'), enumerable: true });

module.exports = { Backend };
